use super::*;

fn parse(text: &str) -> Result<Spec, serde_json::Error> {
    serde_json::from_str(text)
}

const MINIMAL: &str = r#"{"ociVersion":"1.0.2","process":{"cwd":"/","args":["true"]},"root":{"path":"r"}}"#;

#[test]
fn reads_a_minimal_configuration() {
    let spec = parse(MINIMAL).unwrap();
    spec.check().unwrap();
    assert_eq!(spec.process().unwrap().args, ["true"]);
    assert!(!spec.root.unwrap().readonly);
}

#[test]
fn reads_null_as_nothing() {
    let text = MINIMAL.replace("\"args\":[\"true\"]", "\"args\":[\"a\"],\"rlimits\":null,\"env\":null");
    assert!(parse(&text).unwrap().process().unwrap().env.is_empty());
}

#[test]
fn refuses_what_has_no_meaning() {
    let bad = |from: &str, to: &str| {
        let text = MINIMAL.replace(from, to);
        assert_ne!(text, MINIMAL);
        parse(&text).map_or(true, |spec| spec.check().is_err())
    };
    assert!(bad("\"true\"", ""));
    assert!(bad("\"args\":[\"true\"]", "\"args\":7"));
    assert!(bad("\"cwd\":\"/\"", "\"cwd\":\"here\""));
    assert!(bad("1.0.2", "2.0"));
    assert!(bad("\"true\"", "\"tr\\u0000ue\""));
    assert!(parse("[]").is_err());
}

#[test]
fn a_bind_mount_is_one_by_type_or_option() {
    let mount = |kind: &str, options: &[&str]| Mount {
        kind: Some(kind.to_owned()),
        options: options.iter().map(|&o| o.to_owned()).collect(),
        ..Mount::default()
    };
    assert!(mount("bind", &[]).is_bind());
    assert!(mount("none", &["rbind", "ro"]).is_bind());
    assert!(!mount("tmpfs", &["ro"]).is_bind());
}
