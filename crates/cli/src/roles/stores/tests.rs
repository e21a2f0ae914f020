use super::*;
use tempfile::TempDir;

/// A server's directory and a disk's, with what was found there.
struct Bench {
    home: TempDir,
}

impl Bench {
    fn new() -> Bench {
        Bench { home: TempDir::new().unwrap() }
    }

    fn disk(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Starts with target 11 on disk `a` and 12 on disk `b`.
    fn find(&self, replace: &[u32]) -> Result<Found, String> {
        let directory = Directory::open(&self.home.path().join("server")).unwrap();
        let place = |(id, name)| TargetPlace { target: TargetId(id), directory: self.disk(name) };
        let replace: Vec<TargetId> = replace.iter().copied().map(TargetId).collect();
        find(&directory, [(11, "a"), (12, "b")].map(place).into(), &replace)
    }

    /// The targets that are there, and those that are missing.
    fn check(&self, replace: &[u32], present: &[u32], missing: &[u32]) -> Vec<String> {
        let found = self.find(replace).unwrap();
        let there: Vec<u32> = found.present.iter().map(|place| place.target.0).collect();
        let gone: Vec<u32> = found.missing.iter().map(|target| target.target.0).collect();
        assert_eq!((there.as_slice(), gone.as_slice()), (present, missing));
        found.missing.into_iter().map(|target| target.why).collect()
    }

    fn mark(&self, name: &str) -> String {
        fs::read_to_string(self.disk(name).join(MARK)).unwrap()
    }
}

#[test]
fn a_disk_that_is_not_mounted_is_missing_and_nothing_is_made() {
    let bench = Bench::new();
    bench.check(&[], &[11, 12], &[]);
    let away = bench.disk("away");
    fs::rename(bench.disk("a"), &away).unwrap();
    bench.check(&[], &[12], &[11]);
    assert!(!bench.disk("a").exists());

    fs::create_dir(bench.disk("a")).unwrap();
    let why = bench.check(&[], &[12], &[11]).remove(0);
    assert_eq!(fs::read_dir(bench.disk("a")).unwrap().count(), 0);
    for part in [&bench.disk("a").display().to_string(), "mounted", "--replace-target 11"] {
        assert!(why.contains(part), "{why}");
    }

    fs::remove_dir(bench.disk("a")).unwrap();
    fs::rename(&away, bench.disk("a")).unwrap();
    bench.check(&[], &[11, 12], &[]);
}

#[test]
fn disks_in_each_other_s_places_are_missing() {
    let bench = Bench::new();
    bench.check(&[], &[11, 12], &[]);
    fs::rename(bench.disk("a"), bench.disk("c")).unwrap();
    fs::rename(bench.disk("b"), bench.disk("a")).unwrap();
    fs::rename(bench.disk("c"), bench.disk("b")).unwrap();
    bench.check(&[], &[], &[11, 12]);
}

#[test]
fn another_store_of_the_same_target_is_not_it() {
    let (bench, other) = (Bench::new(), Bench::new());
    bench.check(&[], &[11, 12], &[]);
    other.check(&[], &[11, 12], &[]);
    fs::copy(other.disk("a").join(MARK), bench.disk("a").join(MARK)).unwrap();
    bench.check(&[], &[12], &[11]);
}

#[test]
fn a_mark_that_cannot_be_read_is_missing() {
    let bench = Bench::new();
    bench.check(&[], &[11, 12], &[]);
    fs::write(bench.disk("a").join(MARK), "steradian target 11\nstore \n").unwrap();
    bench.check(&[], &[12], &[11]);
}

#[test]
fn a_target_is_begun_anew_only_when_told_to_and_on_an_empty_disk() {
    let bench = Bench::new();
    assert!(bench.find(&[11]).unwrap_err().contains("has not had"));
    bench.check(&[], &[11, 12], &[]);
    let old = bench.mark("a");
    assert!(bench.find(&[11]).unwrap_err().contains("has the store it should have"));
    assert!(bench.find(&[13]).unwrap_err().contains("no target 13"));

    fs::remove_file(bench.disk("a").join(MARK)).unwrap();
    fs::write(bench.disk("a").join("precious"), "").unwrap();
    assert!(bench.find(&[11]).unwrap_err().contains("not empty"));

    fs::remove_file(bench.disk("a").join("precious")).unwrap();
    fs::create_dir(bench.disk("a").join(LOST_AND_FOUND)).unwrap();
    bench.check(&[11], &[11, 12], &[]);
    assert_ne!(bench.mark("a"), old);
    bench.check(&[], &[11, 12], &[]);
}

#[test]
fn marks_without_a_number_get_one() {
    let bench = Bench::new();
    fs::create_dir(bench.disk("a")).unwrap();
    fs::write(bench.disk("a").join(MARK), "steradian target 11\n").unwrap();
    bench.check(&[], &[11, 12], &[]);
    assert_eq!(bench.mark("a").lines().count(), 2);
    bench.check(&[], &[11, 12], &[]);
}

#[test]
fn a_new_target_does_not_take_another_one_s_disk() {
    let bench = Bench::new();
    fs::create_dir(bench.disk("a")).unwrap();
    fs::write(bench.disk("a").join(MARK), "steradian target 12\nstore 00\n").unwrap();
    assert!(bench.find(&[]).unwrap_err().contains("wrong place"));
}
