//! Tells the linker where libtorch lies, so that the trainer's programs start without LD_LIBRARY_PATH.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    let Some(libtorch) = std::env::var_os("LIBTORCH") else { return };
    let lib = std::path::Path::new(&libtorch).join("lib");
    println!("cargo::rustc-link-arg=-Wl,-rpath,{}", lib.display());
    // Nothing in the program names a function of libtorch's CUDA half, so the linker would leave it out; but that half
    // registers itself when it is loaded.
    println!("cargo::rerun-if-changed={}", lib.display());
    if lib.join("libtorch_cuda.so").exists() {
        println!("cargo::rustc-link-arg=-Wl,--push-state,--no-as-needed");
        println!("cargo::rustc-link-arg={}", lib.join("libtorch_cuda.so").display());
        println!("cargo::rustc-link-arg=-Wl,--pop-state");
    }
}
