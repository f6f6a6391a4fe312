//! Adds the folder of libtorch to the run path of the trainer's programs, so that they start without LD_LIBRARY_PATH.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    let Some(libtorch) = std::env::var_os("LIBTORCH") else { return };
    let lib = std::path::Path::new(&libtorch).join("lib");
    println!("cargo::rustc-link-arg=-Wl,-rpath,{}", lib.display());
    // The program calls no function of `libtorch_cuda.so`, so the linker would omit the library. It must be loaded, because
    // it registers the CUDA device when it is loaded.
    println!("cargo::rerun-if-changed={}", lib.display());
    if lib.join("libtorch_cuda.so").exists() {
        println!("cargo::rustc-link-arg=-Wl,--push-state,--no-as-needed");
        println!("cargo::rustc-link-arg={}", lib.join("libtorch_cuda.so").display());
        println!("cargo::rustc-link-arg=-Wl,--pop-state");
    }
}
