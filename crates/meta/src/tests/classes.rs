//! Which class new files get.

use super::*;

fn set(path: &str, class: Option<&str>) -> Change {
    Change::SetClass { place: path.into(), class: class.map(str::to_owned) }
}

fn explain(world: &mut World, path: &str) -> (String, Option<String>) {
    match world.read(1, MetaRequest::ExplainClass { place: path.into() }).unwrap() {
        MetaReply::Explained { class, set_by } => (class.name, set_by),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_nearest_setting_above_counts_at_once() {
    let mut world = World::open();
    world.mkdir(1, "a", 0o755).unwrap();
    world.mkdir(1, "a/b", 0o755).unwrap();
    let class_of = |world: &mut World, path: &str| world.make(1, path, 0o644).unwrap().layout.unwrap().class;
    assert_eq!(class_of(&mut world, "a/b/1"), ClassId(1));
    assert_eq!(explain(&mut world, "a/b"), ("default".to_owned(), None));
    world.change(1, set("a", Some("other"))).unwrap();
    assert_eq!(class_of(&mut world, "a/b/2"), ClassId(2));
    assert_eq!(explain(&mut world, "a/b/2"), ("other".to_owned(), Some("/a".to_owned())));
    world.change(1, set("a/b", Some("default"))).unwrap();
    assert_eq!(class_of(&mut world, "a/b/3"), ClassId(1));
    assert_eq!(explain(&mut world, "a/b"), ("default".to_owned(), Some("/a/b".to_owned())));
    world.change(1, set("a/b", None)).unwrap();
    assert_eq!(class_of(&mut world, "a/b/4"), ClassId(2));
    // What was made before keeps its class.
    assert_eq!(world.stat(1, "a/b/1").unwrap().layout.unwrap().class, ClassId(1));
}

#[test]
fn classes_are_set_by_owners_on_directories() {
    let mut world = World::open();
    world.mkdir(1, "a", 0o777).unwrap();
    world.make(1, "f", 0o644).unwrap();
    assert_eq!(world.change(2, set("a", Some("other"))), Err(MetaError::Denied));
    assert_eq!(world.change(1, set("a", Some("none"))), Err(MetaError::NoClass));
    assert_eq!(world.change(1, set("f", Some("other"))), Err(MetaError::NotDirectory));
    world.change(ROOT, set("a", Some("other"))).unwrap();
}

#[test]
fn a_create_may_name_its_class() {
    let mut world = World::open();
    let create = |class: &str| Change::Create {
        place: class.into(),
        kind: FileKind::File,
        mode: Mode(0o644),
        device: 0,
        exclusive: Exclusive::Yes,
        class: Some(class.to_owned()),
    };
    assert_eq!(world.change(1, create("none")), Err(MetaError::NoClass));
    world.change(1, create("other")).unwrap();
    let layout = world.stat(1, "other").unwrap().layout.unwrap();
    assert_eq!((layout.class, layout.table, layout.slots), (ClassId(2), TableId(2), 8));
}

#[test]
fn without_classes_a_create_may_be_tried_again() {
    let mut world = World::open();
    let classes = std::mem::take(&mut world.classes);
    let origin = world.origin();
    let create = Change::LeaseInodes { place: "/".into(), count: 1, class: None };
    assert_eq!(world.retry(1, origin, create.clone()), Err(MetaError::Unavailable));
    world.classes = classes;
    world.retry(1, origin, create).unwrap();
}
