//! The documents that clients read before all else.

use crate::cloud::Cloud;

#[tokio::test]
async fn every_service_says_its_versions() {
    let cloud = Cloud::open().await;
    for (path, status, pointer, wanted) in [
        ("/identity", 300, "/versions/values/0/links/0/href", "http://cloud:5000/identity/v3/"),
        ("/identity/", 300, "/versions/values/0/id", "v3.14"),
        ("/identity/v3", 200, "/version/links/0/href", "http://cloud:5000/identity/v3/"),
        ("/identity/v3/", 200, "/version/media-types/0/base", "application/json"),
        ("/compute", 200, "/versions/1/links/0/href", "http://cloud:5000/compute/v2.1/"),
        ("/compute/v2.1", 200, "/version/version", "2.96"),
        ("/compute/v2.1/", 200, "/version/min_version", "2.1"),
        ("/image", 300, "/versions/0/links/0/href", "http://cloud:5000/image/v2/"),
        ("/image/versions", 200, "/versions/0/status", "CURRENT"),
        ("/network/", 200, "/versions/0/links/0/href", "http://cloud:5000/network/v2.0/"),
        ("/volume/", 300, "/versions/0/version", "3.71"),
        ("/placement", 200, "/versions/0/max_version", "1.39"),
    ] {
        let reply = cloud.get("", path).await;
        let json = reply.expect(status);
        assert_eq!(json.pointer(pointer).and_then(|v| v.as_str()), Some(wanted), "{path}: {json}");
        assert!(reply.headers["x-openstack-request-id"].to_str().unwrap().starts_with("req-"));
    }
    assert_eq!(cloud.get("", "/identity").await.headers["location"], "http://cloud:5000/identity/v3/");
    assert_eq!(cloud.get("", "/").await.expect(200)["services"][0]["path"], "/identity");
}

#[tokio::test]
async fn some_documents_are_for_those_who_are_known() {
    let cloud = Cloud::open().await;
    for path in ["/volume/v3/", "/network/v2.0/"] {
        let refused = cloud.get("", path).await;
        assert_eq!(refused.expect(401)["error"]["title"], "Unauthorized");
        assert_eq!(refused.headers["www-authenticate"], "Keystone uri=\"http://cloud:5000/identity\"");
        cloud.get("nonsense", path).await.expect(401);
        cloud.get(&cloud.admin, path).await.expect(200);
    }
}
