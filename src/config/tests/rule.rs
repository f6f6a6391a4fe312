//! `[[stream.zone]]` and `[[stream.rule]]`.

use super::*;

const ZONE: &str = "[[stream.zone]]\nname = \"bay\"\npolygon = [[0, 0], [1, 0], [1, 1]]\n";

fn read_rules(text: &str) -> Result<StreamConfig, ConfigErrors> {
    read_stream(&format!("source = \"test://\"\n{text}"))
}

#[test]
fn a_rule_needs_a_name_and_classes() {
    let stream =
        read_rules(&format!("{ZONE}[[stream.rule]]\nname = \"r\"\nclasses = [\"car\"]\nzone = \"bay\"")).unwrap();
    let expected = RuleConfig { zone: Some("bay".into()), ..RuleConfig::of("r", &["car"]) };
    assert_eq!((stream.rules, stream.zones.len()), (vec![expected], 1));
}

#[test]
fn the_release_of_a_rule_depends_on_its_condition() {
    for (when, share, release) in
        [("above", 0.5, 0.25), ("absent", 0.5, 0.25), ("left", 0.1, 0.05), ("below", 0.1, 0.15), ("below", 0.8, 0.9)]
    {
        let text = format!("[[stream.rule]]\nname = \"r\"\nclasses = [\"car\"]\nwhen = \"{when}\"\nshare = {share}");
        let found = read_rules(&text).unwrap().rules[0].release;
        assert!((found - release).abs() < 1e-9, "{when} {share}: {found}");
    }
}

#[test]
fn rules_and_zones_that_make_no_sense_are_refused() {
    let rule = "[[stream.rule]]\nname = \"r\"\nclasses = [\"car\"]\n";
    for (text, error) in [
        (format!("{rule}zone = \"yard\""), "rule[0].zone: the stream has no zone \"yard\" (help: add [[stream.zone]]"),
        (
            format!("{ZONE}{rule}zone = \"yard\""),
            "rule[0].zone: the stream has no zone \"yard\" (help: zones of this stream: \"bay\"",
        ),
        (format!("{rule}{rule}"), "rule[1].name: \"r\" is already the name of another rule or recorded event"),
        (
            "[[stream.rule]]\nname = \"r\"\nclasses = [\"car\", \"bus\", \"car\"]\n".into(),
            "rule[0].classes: rule \"r\" has the class \"car\" twice (help: remove one)",
        ),
        (
            format!("{rule}when = \"often\""),
            "rule[0].when: \"often\" is not one of \"above\", \"below\", \"absent\", \"entered\", \"left\"",
        ),
        (format!("{rule}release = 0.5"), "rule[0].release: 0.5 is more than share (0.02)"),
        (format!("{rule}when = \"below\"\nrelease = 0.01"), "rule[0].release: 0.01 is less than share (0.02)"),
        (format!("{rule}record = true"), "rule[0].record: the stream has no [stream.record]"),
        (format!("{rule}share = 1.5"), "rule[0].share: 1.5 is not between 0.0001 and 1"),
        ("[[stream.rule]]\nname = \"r\"".into(), "rule[0].classes: is missing"),
        ("[[stream.rule]]\nclasses = [\"car\"]".into(), "rule[0].name: is missing"),
        (format!("{ZONE}{ZONE}"), "zone[1].name: \"bay\" is already the name of another zone"),
        (
            "[[stream.zone]]\nname = \"a\"\npolygon = [[0, 0], [1, 1]]".into(),
            "zone[0].polygon: has 2 corners, fewer than 3",
        ),
        (
            "[[stream.zone]]\nname = \" a\"\npolygon = [[0, 0], [1, 1], [1, 0]]".into(),
            "zone[0].name: begins or ends with a space",
        ),
        (
            "[[stream.zone]]\nname = \"a\\n\"\npolygon = [[0, 0], [1, 1], [1, 0]]".into(),
            "zone[0].name: begins or ends with a space",
        ),
        (
            "[[stream.zone]]\nname = \"a\\u0007b\"\npolygon = [[0, 0], [1, 1], [1, 0]]".into(),
            "zone[0].name: contains control characters",
        ),
    ] {
        let found = only(read_rules(&text));
        assert!(found.starts_with(&format!("stream[gate].{error}")), "{text}\n{found}");
    }
}

#[test]
fn a_stream_has_at_most_64_zones_and_rules() {
    let zones: String = (0..65).map(|n| ZONE.replace("bay", &format!("z{n}"))).collect();
    let rules: String = (0..65).map(|n| format!("[[stream.rule]]\nname = \"r{n}\"\nclasses = [\"car\"]\n")).collect();
    assert_eq!(only(read_rules(&zones)), "stream[gate].zone: there are 65 zones, more than 64");
    assert_eq!(only(read_rules(&rules)), "stream[gate].rule: there are 65 rules, more than 64");
}

#[test]
fn names_of_zones_may_have_any_printable_characters() {
    let text = "[[stream.zone]]\nname = \"Übergang 3 \\\"><script>\"\npolygon = [[0, 0], [1, 1], [1, 0]]";
    assert_eq!(read_rules(text).unwrap().zones[0].name, "Übergang 3 \"><script>");
}

#[test]
fn a_recorded_rule_is_an_event_to_wait_for() {
    let rule = "[[stream.rule]]\nname = \"r\"\nclasses = [\"car\"]\nrecord = true\n";
    let record = "[stream.record]\ndir = \"/srv/gate\"\nwhen = \"event\"\n";
    assert_eq!(read_rules(&format!("{rule}{record}")).unwrap().recorded_rules().count(), 1);
    let error =
        only(read_rules(&format!("{record}[[stream.record.event]]\nname = \"r\"\nclasses = [\"car\"]\n{rule}")));
    assert!(error.starts_with("stream[gate].rule[0].name: \"r\" is already the name"), "{error}");
}
