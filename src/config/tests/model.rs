//! `[model]`.

use super::*;

#[test]
fn providers_and_requirement() {
    assert_eq!(read_model("providers = [\"cpu\"]").unwrap().providers, [Provider::Cpu]);
    assert!(only(read_model("providers = []")).starts_with("model.providers: must not be empty"));
    assert!(only(read_model("providers = \"cpu\"")).starts_with("model.providers: must be an array, not a string"));
    let error = only(read_model("providers = [\"cpu\"]\nrequire = \"gpu\""));
    assert!(error.starts_with("model.require: \"gpu\" is required, but only \"cpu\" may be used"), "{error}");
    assert!(only(read_model("device = 64")).starts_with("model.device: 64 is not between 0 and 63"));
    assert!(only(read_model("threads = 99999999999999999999")).starts_with("model.threads: 99999999999999999999 is"));
    assert!(only(read_model("cache_dir = \"pw\"")).starts_with("model.cache_dir: is a file, not a folder"));
    assert!(only(read_model("runtime = \".\"")).starts_with("model.runtime: is a folder, not a file"));
}
