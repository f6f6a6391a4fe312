//! `[stream.record]`.

use super::*;

/// `text` below `[stream.record]` with a folder.
fn read_record(text: &str) -> Result<RecordConfig, ConfigErrors> {
    let text = format!("source = \"test://\"\n[stream.record]\ndir = \"/srv/gate\"\n{text}");
    read_stream(&text).map(|stream| stream.record.unwrap())
}

#[test]
fn recordings_are_unlimited_files_of_ten_minutes_by_default() {
    assert_eq!(read_record("").unwrap(), RecordConfig::to("/srv/gate"));
    let event = read_record("[[stream.record.event]]\nclasses = [\"car\"]").unwrap();
    assert_eq!((event.when, event.events), (When::Always, vec![EventConfig::of("event", &["car"])]));
}

#[test]
fn sizes_of_recordings() {
    for (written, bytes) in [("\"500MB\"", 500_000_000), ("\"1.5 GiB\"", 3 << 29), ("200000", 200_000)] {
        assert_eq!(read_record(&format!("max_size = {written}")).unwrap().max_size, Some(bytes), "{written}");
    }
    let help = "(help: write \"500MB\", \"50GB\" or a number of bytes)";
    for (written, problem) in [
        ("\"much\"", format!("\"much\" is not a size {help}")),
        ("\"5 parsecs\"", format!("\"5 parsecs\" is not a size {help}")),
        ("\"1kB\"", format!("1kB is not between 100.0 kB and 1.2 EB {help}")),
        ("-5", format!("-5 bytes is not between 100.0 kB and 1.2 EB {help}")),
        ("true", format!("must be a size, not a boolean {help}")),
    ] {
        let error = only(read_record(&format!("min_free = {written}")));
        assert_eq!(error, format!("stream[gate].record.min_free: {problem}"));
    }
}

#[test]
fn limits_of_recordings_that_cannot_be_kept_are_refused() {
    for (text, error) in [
        ("segment = \"0s\"", "segment: 0s is not between 1s and 1d"),
        ("max_age = \"5s\"", "max_age: 5s is not between 1m and 36600d"),
        ("segment_size = \"1GB\"\nmax_size = \"900MB\"", "max_size: is less than segment_size"),
        ("when = \"event\"", "when: there is no event to wait for"),
        ("when = \"sometimes\"", "when: \"sometimes\" is not one of \"always\", \"event\""),
        ("event = 7", "event: must be an array of tables, not an integer"),
        ("[stream.record.event]\nclasses = [\"car\"]", "event: is written [stream.record.event]"),
    ] {
        let found = only(read_record(text));
        assert!(found.starts_with(&format!("stream[gate].record.{error}")), "{found}");
    }
}

#[test]
fn events_that_cannot_happen_are_refused() {
    for (text, error) in [
        ("name = \"in\"", "classes: is missing"),
        ("classes = []", "classes: must not be empty"),
        ("classes = [\"car\", 5]", "classes[1]: must be a string, not an integer"),
        ("classes = [\"car\"]\nname = \"2nd\"", "name: \"2nd\" is not a letter and after it"),
        ("classes = [\"car\"]\nname = \"a/b\"", "name: \"a/b\" is not a letter and after it"),
        ("classes = [\"car\"]\nshare = 0", "share: 0 is not between 0.0001 and 1"),
        ("classes = [\"car\"]\nzone = [[0, 0], [1, 1]]", "zone: has 2 corners, fewer than 3"),
        ("classes = [\"car\"]\nzone = [[0, 0], [1, 1], [0.5]]", "zone[2]: has 1 numbers, not 2"),
        ("classes = [\"car\"]\nzone = [[0, 0], [1, 0], [1, 1.5]]", "zone[2][1]: 1.5 is not between 0 and 1"),
        ("classes = [\"car\"]\nzone = [[0, 0], [0.5, 0.5], [1, 1]]", "zone: covers nothing"),
        ("classes = [\"car\"]\npre_roll = \"5m\"", "pre_roll: 5m is not between 0s and 1m"),
        ("classes = [\"car\"]\nduration = 5", "duration: unknown key"),
    ] {
        let found = only(read_record(&format!("[[stream.record.event]]\n{text}")));
        assert!(found.starts_with(&format!("stream[gate].record.event[0].{error}")), "{found}");
    }
    let twice = "[[stream.record.event]]\nname = \"a\"\nclasses = [\"car\"]\n".repeat(2);
    let found = only(read_record(&twice));
    assert!(
        found.starts_with("stream[gate].record.event[1].name: \"a\" is already the name of another event"),
        "{found}"
    );
}
