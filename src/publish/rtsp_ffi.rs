//! Calls of GStreamer's C library for which the Rust bindings have no functions: address, socket and TLS connection of
//! an RTSP client, and parameters of its credentials.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::net::IpAddr;

use gstreamer_rtsp_server as rtsp_server;

use gstreamer::glib::translate::{ToGlibPtr, from_glib_none};
use rtsp_server::ffi::gst_rtsp_client_get_connection;
use rtsp_server::gio::prelude::TlsConnectionExt;
use rtsp_server::gio::{self, Socket};
use rtsp_server::gst_rtsp::RTSPAuthCredential;
use rtsp_server::gst_rtsp::ffi::{
    GstRTSPAuthParam, gst_rtsp_connection_get_ip, gst_rtsp_connection_get_read_socket, gst_rtsp_connection_get_tls,
};

/// The address and the socket of a client; `None` for a client without a connection. Must be called on the accepting
/// thread, before another thread has access to the client, because closing the client frees both.
pub(super) fn peer(client: &rtsp_server::RTSPClient) -> Option<(IpAddr, Socket)> {
    // SAFETY: The reference keeps the client alive, and the client its connection; no other thread can close it yet.
    // The text and the socket belong to the connection: the text is copied, and `from_glib_none` takes a reference to
    // the socket. Every pointer is checked for null before its use.
    unsafe {
        let connection = gst_rtsp_client_get_connection(client.to_glib_none().0);
        if connection.is_null() {
            return None;
        }
        let (ip, socket) = (gst_rtsp_connection_get_ip(connection), gst_rtsp_connection_get_read_socket(connection));
        if ip.is_null() || socket.is_null() {
            return None;
        }
        let address = parse(CStr::from_ptr(ip).to_str().ok()?)?;
        Some((address, from_glib_none(socket)))
    }
}

/// Removes the certificate authorities from the TLS connection of a new client. The server requests no client
/// certificates, but GLib loads all trusted authorities of the system for each connection, which costs megabytes and
/// milliseconds.
pub(super) fn drop_certificate_authorities(context: &rtsp_server::RTSPContext) {
    // SAFETY: The reference keeps the context alive, and the context its connection, which no other thread uses yet.
    // Every pointer is checked for null. `from_glib_none` takes a reference to the TLS connection.
    let tls: gio::TlsConnection = unsafe {
        let connection = (*context.to_glib_none().0).conn;
        if connection.is_null() {
            return;
        }
        let tls = gst_rtsp_connection_get_tls(connection, std::ptr::null_mut());
        if tls.is_null() {
            return;
        }
        from_glib_none(tls)
    };
    tls.set_database(gio::TlsDatabase::NONE);
}

/// A parameter of an `Authorization` header, for example `username` of digest credentials.
pub(super) fn parameter(credential: &RTSPAuthCredential, name: &str) -> Option<String> {
    let params = credential.params();
    params.iter().find_map(|param| {
        let param: *const GstRTSPAuthParam = param.to_glib_none().0;
        // SAFETY: `params` keeps the parameter alive. Its texts belong to it and are null-terminated or null, which is
        // checked; the returned one is copied.
        unsafe {
            let ((found, value), text) = (((*param).name, (*param).value), |text| CStr::from_ptr(text).to_str());
            match !found.is_null() && !value.is_null() && text(found) == Ok(name) {
                true => text(value).ok().map(String::from),
                false => None,
            }
        }
    })
}

/// Parses an address. GLib appends the network interface to a link-local address, for example `fe80::1%eth0`.
fn parse(text: &str) -> Option<IpAddr> {
    let address = text.split('%').next()?.parse::<IpAddr>().ok()?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_in_the_format_of_glib_are_parsed() {
        for (text, address) in [
            ("192.0.2.7", Some("192.0.2.7")),
            ("::ffff:192.0.2.7", Some("192.0.2.7")),
            ("fe80::1%eth0", Some("fe80::1")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("box.local", None),
            ("", None),
        ] {
            assert_eq!(parse(text), address.map(|address| address.parse().unwrap()), "{text}");
        }
    }
}
