//! Tells the trainer's binaries where libtorch lies, so that they start without LD_LIBRARY_PATH.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    if std::env::var_os("CARGO_FEATURE_TRAINER").is_some()
        && let Some(libtorch) = std::env::var_os("LIBTORCH")
    {
        let lib = std::path::Path::new(&libtorch).join("lib");
        println!("cargo::rustc-link-arg=-Wl,-rpath,{}", lib.display());
        // Nothing in the program names a function of libtorch's CUDA half, so the linker would leave it out; but it is
        // by being loaded that it tells libtorch of itself.
        println!("cargo::rerun-if-changed={}", lib.display());
        if lib.join("libtorch_cuda.so").exists() {
            println!("cargo::rustc-link-arg=-Wl,--push-state,--no-as-needed");
            println!("cargo::rustc-link-arg={}", lib.join("libtorch_cuda.so").display());
            println!("cargo::rustc-link-arg=-Wl,--pop-state");
        }
    }
}
