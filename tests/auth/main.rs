//! Closed by default: every endpoint without credentials, with a viewer's and with an operator's, over HTTP, TLS and RTSP.
//! The points of OWASP ASVS that apply are listed with these tests in SECURITY.md.

#[path = "../common/mod.rs"]
mod common;

mod flood;
mod house;
mod http;
mod network;
mod people;
mod proxy;
