//! Tags, catalogues, searches.

use unroot_registry::ErrorKind;

use crate::server::{Reply, Server};
use crate::{client, reference};

#[test]
fn tags_page_by_page() {
    let server = Server::start(|seen, _| match seen.path.as_str() {
        "/v2/a/tags/list" => Reply::ok(r#"{"name":"a","tags":["1","2"]}"#)
            .header("Link", "</v2/a/tags/list?last=2&n=2>; rel=\"next\""),
        "/v2/a/tags/list?last=2&n=2" => Reply::ok(r#"{"tags":["\u001b[2J3"]}"#),
        "/v2/none/tags/list" => Reply::ok(r#"{"tags":null}"#),
        _ => Reply::new(404).body(
            r#"{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry"}]}"#,
        ),
    });
    assert_eq!(client().tags(&reference(&server.name("a"))).unwrap(), ["1", "2", "[2J3"]);
    assert!(client().tags(&reference(&server.name("none"))).unwrap().is_empty());
    let error = client().tags(&reference(&server.name("b"))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().ends_with("name unknown: repository name not known to registry"), "{error}");
}

#[test]
fn lists_end_and_stay_at_home() {
    let other = Server::start(|_, _| Reply::ok(r#"{"tags":["stolen"]}"#));
    let next = format!("<http://{}/v2/x>; rel=\"next\"", other.address);
    let circular = Server::start(move |_, _| Reply::ok(r#"{"tags":[]}"#).header("Link", next.clone()));
    let error = client().tags(&reference(&circular.name("a"))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
    assert!(other.seen().is_empty());
    assert_eq!(circular.seen().len(), 2);
    let growing = Server::start(|_, count| {
        Reply::ok(r#"{"tags":[]}"#).header("Link", format!("</v2/a/tags/list?page={count}>; rel=\"next\""))
    });
    assert_eq!(client().tags(&reference(&growing.name("a"))).unwrap_err().kind(), ErrorKind::TooLarge);
}

#[test]
fn searches_by_index_or_catalogue() {
    let index = Server::start(|seen, _| match seen.path.as_str() {
        "/v1/search?q=web%20app&n=5" => Reply::ok(
            r#"{"results":[{"name":"me/web","description":"A \u001b]0;web","star_count":3,"is_official":true,"is_automated":false}]}"#,
        ),
        _ => Reply::new(404),
    });
    let found = client().search(&index.address, "web app", 5).unwrap();
    assert_eq!(found[0].name, index.name("me/web"));
    assert_eq!((found[0].description.as_str(), found[0].stars, found[0].official), ("A ]0;web", 3, true));

    let catalogue = Server::start(|seen, _| match seen.path.as_str() {
        "/v2/_catalog" => {
            Reply::ok(r#"{"repositories":["a/web","b"]}"#).header("Link", "</v2/_catalog?last=b>; rel=next")
        }
        "/v2/_catalog?last=b" => Reply::ok(r#"{"repositories":["web","webs"]}"#),
        _ => Reply::new(404),
    });
    let names: Vec<_> =
        client().search(&catalogue.address, "web", 25).unwrap().into_iter().map(|found| found.name).collect();
    assert_eq!(names, ["web", "a/web", "webs"].map(|name| catalogue.name(name)));
    assert_eq!(client().catalog(&catalogue.address, 3).unwrap(), ["a/web", "b", "web"]);
    assert_eq!(client().search(&catalogue.address, "web", 1).unwrap().len(), 1);
}
