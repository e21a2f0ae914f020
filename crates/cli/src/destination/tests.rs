use super::*;

fn place(path: &str, there: There, several: bool, what: What) -> Result<Option<&'static str>, Misfit> {
    Destination { path, there, several }.place("name", what)
}

#[test]
fn follows_the_rules_of_cp() {
    use There::{Directory, File, Nothing};
    // put a /dir
    assert_eq!(place("/dir", Directory, false, What::File), Ok(Some("name")));
    assert_eq!(place("/dir/", Directory, false, What::Directory), Ok(Some("name")));
    // put a /new, put a /old
    assert_eq!(place("/new", Nothing, false, What::File), Ok(None));
    assert_eq!(place("/old", File, false, What::File), Ok(None));
    // put a /new/, put a /old/
    assert_eq!(place("/new/", Nothing, false, What::File), Err(Misfit::NotDirectory));
    assert_eq!(place("/old/", File, false, What::File), Err(Misfit::NotDirectory));
    // put -r d /new, put -r d /new/
    assert_eq!(place("/new", Nothing, false, What::Directory), Ok(None));
    assert_eq!(place("/new/", Nothing, false, What::Directory), Ok(None));
    // put -r d /old
    assert_eq!(place("/old", File, false, What::Directory), Err(Misfit::OverFile));
    // put a b /dir, put a b /new, put a b /old
    assert_eq!(place("/dir", Directory, true, What::File), Ok(Some("name")));
    assert_eq!(place("/new", Nothing, true, What::File), Err(Misfit::NotDirectory));
    assert_eq!(place("/new", Nothing, true, What::Directory), Err(Misfit::NotDirectory));
    assert_eq!(place("/old", File, true, What::Directory), Err(Misfit::NotDirectory));
}

#[test]
fn a_source_without_a_name_gives_its_contents() {
    let destination = Destination { path: "/dir", there: There::Directory, several: false };
    assert_eq!(destination.place("", What::Directory), Ok(None));
}
