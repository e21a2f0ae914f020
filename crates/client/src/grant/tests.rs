use super::*;
use types::{ClassId, TableId, Time, Uid};

fn layout(table: u16) -> Layout {
    Layout { class: ClassId(1), table: TableId(table), slots: 4, chunk_size: 65_536, seed: 1 }
}

fn capability(rights: Rights) -> Capability {
    Capability {
        first: InodeId(9),
        count: 1,
        rights,
        user: Uid(1),
        expires: Time(1),
        fence: 0,
        seal: [0; 16],
    }
}

#[test]
fn a_right_to_write_is_not_used_where_a_late_answer_says_that_the_file_is() {
    for rights in [Rights::Read, Rights::ReadWrite] {
        let source = GrantSource::Open { inode: InodeId(9), rights };
        let grant = Grant::new(source, layout(2), Some(capability(rights)));
        grant.moved(layout(2));
        assert_eq!(grant.held(), Some(capability(rights)));
        grant.moved(layout(1));
        assert_eq!(grant.layout(), layout(1));
        assert_eq!(grant.held().is_some(), rights == Rights::Read);
    }
}
