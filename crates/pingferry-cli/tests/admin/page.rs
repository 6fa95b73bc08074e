use std::process::{Command, Stdio};

use pingferry_testnet::{isolated, require_program};

use super::support::*;
use super::*;

#[test]
fn the_page_needs_nothing_from_elsewhere() {
    isolated(|| {
        let page = Admin::start(&[]).get("/");
        assert_eq!(page.status, 200);
        assert!(page.head.contains("content-security-policy: default-src 'none'"), "{}", page.head);
        let links = ["https://", "src=", "href=", "@import", "url("];
        assert!(links.iter().all(|link| !page.body.contains(link)), "the page loads something");
    });
}

#[test]
fn a_browser_shows_the_flows() {
    isolated(|| {
        if !require_program("chromium") {
            return;
        }
        let served = Served::start(&["--admin", "127.0.0.1:9090"]);
        ping(&served.client(), CLIENT, TARGET, 4711);
        let profile = tempfile::tempdir().unwrap();
        let mut browser = Command::new("chromium");
        browser.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom"]);
        browser.arg(format!("--user-data-dir={}", profile.path().display())).arg("http://127.0.0.1:9090/");
        let shown = served.network.proxy.output(browser.env("HOME", profile.path()).stderr(Stdio::null())).unwrap();
        let shown = stdout(&shown);
        assert!(shown.contains(r#"<strong id="state" class="good">ready</strong>"#), "{shown}");
        for cell in [CLIENT, TARGET, "4711"] {
            assert!(shown.contains(&format!("<td>{cell}</td>")), "{cell}: {shown}");
        }
    });
}
