//! The sources of `zkv-log` and `zkv-store`, built with what the model
//! schedules in the place of what the system does.

fn main() {
    println!("cargo::rerun-if-changed=../build.rs");
    println!("cargo::rustc-check-cfg=cfg(zkv_model)");
    println!("cargo::rustc-cfg=zkv_model");
}
