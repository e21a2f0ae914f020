//! What is shown of the store of the metadata.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use types::store::{EtcdMember, StoreStatus};

/// A part of the store: a member of etcd by its address, the server that PostgreSQL's writes go to, or the directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct StoreLabel {
    /// `local`, `etcd` or `postgresql`.
    engine: &'static str,
    member: String,
}

/// The gauges of the store.
pub struct StoreGauges {
    up: Family<StoreLabel, Gauge>,
    bytes: Family<StoreLabel, Gauge>,
    used: Family<StoreLabel, Gauge>,
    quota: Family<StoreLabel, Gauge>,
    free: Family<StoreLabel, Gauge>,
    alarms: Family<StoreLabel, Gauge>,
}

impl StoreGauges {
    pub(super) fn declare(registry: &mut Registry) -> StoreGauges {
        let mut gauge = |name: &str, help: &str| {
            let family = Family::<StoreLabel, Gauge>::default();
            registry.register(name, help, family.clone());
            family
        };
        StoreGauges {
            up: gauge("store_up", "1 when this part of the metadata store answers, 0 when it does not"),
            bytes: gauge("store_bytes", "Bytes that the metadata takes there: of etcd the member's file"),
            used: gauge("store_used_bytes", "Bytes of these that are in use: of etcd only"),
            quota: gauge(
                "store_quota_bytes",
                "Size of the file from which on a member of etcd takes no writes",
            ),
            free: gauge("store_free_bytes", "Free space of the disk of a local metadata store"),
            alarms: gauge("store_alarms", "Alarms that a member of etcd has raised"),
        }
    }

    /// Shows this, and nothing that was shown before.
    pub fn show(&self, status: &StoreStatus) {
        for family in [&self.up, &self.bytes, &self.used, &self.quota, &self.free, &self.alarms] {
            family.clear();
        }
        let set = |family: &Family<StoreLabel, Gauge>, label: &StoreLabel, value: u64| {
            family.get_or_create(label).set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        match status {
            StoreStatus::Local(local) => {
                let label = StoreLabel { engine: "local", member: local.directory.clone() };
                set(&self.up, &label, 1);
                set(&self.bytes, &label, local.bytes);
                set(&self.free, &label, local.free);
            }
            StoreStatus::Etcd(etcd) => {
                for EtcdMember { address, state, .. } in &etcd.members {
                    let label = StoreLabel { engine: "etcd", member: address.clone() };
                    set(&self.up, &label, u64::from(state.is_ok()));
                    let Ok(state) = state else { continue };
                    set(&self.bytes, &label, state.bytes);
                    set(&self.used, &label, state.used);
                    set(&self.alarms, &label, state.alarms.len() as u64);
                    if let Some(quota) = state.quota {
                        set(&self.quota, &label, quota);
                    }
                }
            }
            StoreStatus::Postgres(postgres) => {
                let member = match &postgres.state {
                    Ok(state) => state.host.clone(),
                    Err(_) => postgres.place.clone(),
                };
                let label = StoreLabel { engine: "postgresql", member };
                set(&self.up, &label, u64::from(postgres.state.is_ok()));
                if let Ok(state) = &postgres.state {
                    set(&self.bytes, &label, state.bytes);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::metrics::Metrics;
    use types::store::{EtcdAlarm, EtcdMember, EtcdState, EtcdStatus, StoreStatus};

    #[test]
    fn what_is_gone_is_not_shown_any_more() {
        let metrics = Metrics::new();
        let state = EtcdState {
            version: "3".into(),
            leads: true,
            bytes: 30,
            used: 20,
            quota: Some(40),
            alarms: vec![EtcdAlarm::NoSpace],
        };
        let member =
            |address: &str, state| EtcdMember { address: address.into(), name: None, named: true, state };
        let show = |members| {
            metrics.store.show(&StoreStatus::Etcd(EtcdStatus { place: "p".into(), members, unknown: None }));
            metrics.text()
        };
        let text = show(vec![member("a:1", Ok(state)), member("b:1", Err("no answer".into()))]);
        for line in [
            "steradian_store_up{engine=\"etcd\",member=\"a:1\"} 1",
            "steradian_store_up{engine=\"etcd\",member=\"b:1\"} 0",
            "steradian_store_bytes{engine=\"etcd\",member=\"a:1\"} 30",
            "steradian_store_used_bytes{engine=\"etcd\",member=\"a:1\"} 20",
            "steradian_store_quota_bytes{engine=\"etcd\",member=\"a:1\"} 40",
            "steradian_store_alarms{engine=\"etcd\",member=\"a:1\"} 1",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} is not in\n{text}");
        }
        assert!(!show(vec![member("b:1", Err("no answer".into()))]).contains("a:1"));
    }
}
