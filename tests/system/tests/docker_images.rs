//! Images by the real `docker` command: names, archives both ways, what a container became, and what nobody needs.

use crate::docker::{finish, lab};
use lab::Docker;
use std::{fs, path::Path, process::Command};

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

fn id(docker: &Docker, name: &str) -> String {
    docker.does(&["inspect", "--type", "image", "--format", "{{.Id}}", name])
}

fn tags(docker: &Docker, name: &str) -> String {
    docker.does(&["inspect", "--type", "image", "--format", "{{join .RepoTags \" \"}}", name])
}

#[test]
fn an_image_has_several_names() {
    let (lab, docker) = lab();
    docker.does(&["pull", "busybox"]);
    let image = id(&docker, "busybox");
    docker.does(&["tag", "busybox", "shop/tools:1"]);
    docker.does(&["tag", &image[7..19], "localhost:5000/tools"]);
    docker.does(&["tag", "busybox", "shop/tools:1"]);
    assert_eq!(tags(&docker, "shop/tools:1"), "busybox:latest localhost:5000/tools:latest shop/tools:1");
    assert_eq!(docker.does(&["images", "-q", "--no-trunc"]).lines().collect::<Vec<_>>(), [&image; 3]);
    assert_eq!(docker.does(&["run", "--rm", "shop/tools:1", "echo", "runs"]), "runs");
    docker.refuses(1, "No such image: nosuch", &["tag", "nosuch", "x"]);
    docker.refuses(1, "invalid reference format", &["tag", "busybox", "Not:Good:Name"]);
    // A name that nothing came under is free.
    docker.refuses(1, "absent", &["pull", "absent"]);
    docker.does(&["tag", "busybox", "absent"]);
    assert_eq!(id(&docker, "absent"), image);
    assert_eq!(docker.does(&["run", "--rm", "absent", "echo", "runs"]), "runs");
    assert_eq!(docker.does(&["rmi", "absent"]), "Untagged: absent:latest");

    // A name goes alone as long as there is another, also from below a container that runs.
    docker.does(&["run", "-d", "--name", "one", "busybox", "sleep", "3600"]);
    docker.refuses(1, "must be forced", &["rmi", &image]);
    assert_eq!(docker.does(&["rmi", "busybox"]).lines().next(), Some("Untagged: busybox:latest"));
    assert_eq!(docker.does(&["rmi", "localhost:5000/tools"]), "Untagged: localhost:5000/tools:latest");
    docker.refuses(1, "cannot be forced", &["rmi", "-f", "shop/tools:1"]);
    docker.does(&["stop", "-t", "0", "one"]);
    docker.does(&["start", "one"]);
    assert_eq!(docker.does(&["exec", "one", "echo", "still"]), "still");
    docker.does(&["stop", "-t", "0", "one"]);
    docker.refuses(1, "is using its referenced image", &["rmi", "shop/tools:1"]);
    docker.does(&["rm", "one"]);
    let gone = docker.does(&["rmi", "shop/tools:1"]);
    assert!(gone.contains("Untagged: shop/tools:1") && gone.contains(&format!("Deleted: {image}")), "{gone}");
    assert_eq!(docker.does(&["images", "-q", "-a"]), "");
    docker.refuses(1, "No such image", &["inspect", "--type", "image", &image]);

    moves(&docker);
    finish(lab);
}

/// A name that another image takes; what had it stays until it is pruned.
fn moves(docker: &Docker) {
    docker.does(&["pull", "busybox"]);
    docker.does(&["pull", "web"]);
    let (box_id, web_id) = (id(docker, "busybox"), id(docker, "web"));
    docker.does(&["tag", "busybox", "app"]);
    docker.does(&["create", "--name", "old", "app", "echo", "old"]);
    docker.does(&["rmi", "busybox"]);
    docker.does(&["tag", "web", "app"]);
    assert_eq!(id(docker, "app"), web_id);
    assert_eq!(docker.does(&["images", "-q", "--no-trunc", "-f", "dangling=true"]), box_id);
    assert!(docker.does(&["images"]).contains("<none>"));
    assert_eq!(docker.does(&["start", "-a", "old"]), "old", "a container keeps what it was made of");
    assert_eq!(docker.does(&["image", "prune", "-f"]), "Total reclaimed space: 0B");
    docker.does(&["rm", "old"]);
    let pruned = docker.does(&["image", "prune", "-f"]);
    assert!(pruned.contains(&format!("deleted: {box_id}")) && !pruned.contains("space: 0B"), "{pruned}");
    docker.does(&["run", "-d", "--name", "web", "web"]);
    docker.does(&["pull", "busybox"]);
    let pruned = docker.does(&["image", "prune", "-a", "-f"]);
    assert!(pruned.contains("untagged: busybox:latest") && !pruned.contains("untagged: web"), "{pruned}");
    let told =
        docker.does(&["system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Active}} {{.Reclaimable}}"]);
    assert!(told.contains("Images 1 1 0B"), "{told}");
    docker.does(&["rm", "-f", "web"]);
    let told =
        docker.does(&["system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Active}} {{.Reclaimable}}"]);
    assert!(told.contains("Images 1 0 ") && told.contains("(100%)"), "{told}");
    docker.does(&["rmi", "-f", "web", "app"]);
}

#[test]
fn images_are_saved_and_loaded() {
    let (lab, docker) = lab();
    docker.does(&["pull", "busybox"]);
    docker.does(&["pull", "web"]);
    docker.does(&["tag", "busybox", "busybox:two"]);
    let (box_id, web_id) = (id(&docker, "busybox"), id(&docker, "web"));
    let all = lab.directory().join("all.tar");
    docker.does(&["save", "-o", text(&all), "busybox", "web:latest"]);
    let listed = Command::new("tar").args(["-tf", text(&all)]).output().expect("tar");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    for name in ["manifest.json", "index.json", "oci-layout", "blobs/sha256/"] {
        assert!(listed.contains(name), "{name}: {listed}");
    }
    let by_id = lab.directory().join("by-id.tar");
    docker.does(&["save", "-o", text(&by_id), &box_id]);
    docker.does(&["rmi", "busybox", "busybox:two", "web"]);
    assert_eq!(docker.does(&["images", "-q"]), "");
    let loaded = docker.does(&["load", "-i", text(&all)]);
    for name in ["busybox:latest", "busybox:two", "web:latest"] {
        assert!(loaded.contains(&format!("Loaded image: {name}")), "{loaded}");
    }
    assert_eq!((id(&docker, "busybox:two"), id(&docker, "web")), (box_id.clone(), web_id));
    assert_eq!(docker.does(&["run", "--rm", "busybox:two", "echo", "again"]), "again");
    docker.does(&["rmi", "busybox", "busybox:two", "web"]);
    assert_eq!(docker.does(&["load", "-i", text(&by_id)]), format!("Loaded image ID: {box_id}"));
    assert_eq!(docker.does(&["run", "--rm", &box_id, "echo", "nameless"]), "nameless");
    docker.does(&["rmi", &box_id]);

    // The other form: a layout as tools write it, compressed; and archives that are broken.
    let layout = lab.images.file("busybox", "layout");
    let packed = lab.directory().join("layout.tar.gz");
    let made =
        Command::new("tar").args(["-czf", text(&packed), "-C", text(&layout), "."]).status().expect("tar");
    assert!(made.success());
    assert_eq!(docker.does(&["load", "-i", text(&packed)]), format!("Loaded image ID: {box_id}"));
    docker.does(&["rmi", &box_id]);
    let cut = lab.directory().join("cut.tar");
    let whole = fs::read(&all).expect("reads");
    fs::write(&cut, &whole[..whole.len() / 2]).expect("writes");
    assert_ne!(docker.says(&["load", "-i", text(&cut)]).code, 0);
    let mut lies = whole;
    // A bit within the first blob's content: behind the documents and the blob's header.
    let at = lies.len() / 3;
    lies[at] ^= 1;
    fs::write(&cut, lies).expect("writes");
    assert_ne!(docker.says(&["load", "-i", text(&cut)]).code, 0);
    assert_eq!(docker.does(&["images", "-q", "-a"]), "", "nothing of it stays");
    finish(lab);
}

#[test]
fn images_are_made_of_containers_and_archives() {
    let (lab, docker) = lab();
    docker.does(&["run", "-d", "--name", "box", "-v", "data:/data", "busybox", "sleep", "3600"]);
    let script = "echo new >/etc/added; rm /var/www/index.html; rm -rf /root; mkdir /root; chown 7:8 /etc/added; \
                  chmod 4755 /etc/added; echo volume >/data/kept; ln /etc/added /etc/too";
    docker.does(&["exec", "box", "sh", "-c", script]);
    let changes = ["-c", "CMD [\"cat\", \"/etc/added\"]", "-c", "ENV WORD=\"two words\"", "-c", "EXPOSE 80"];
    let made =
        docker.does(&[&["commit", "-m", "why", "-a", "me"][..], &changes, &["box", "shop/made:1"]].concat());
    assert_eq!(made, id(&docker, "shop/made:1"));
    assert_eq!(docker.does(&["run", "--rm", "shop/made:1"]), "new");
    let look = "echo $WORD; stat -c %u:%g:%a:%h /etc/added; ls /var/www /root /data | wc -w";
    let seen = docker.does(&["run", "--rm", "shop/made:1", "sh", "-c", look]);
    assert_eq!(seen, "two words\n7:8:4755:2\n3", "the names of three directories, and nothing in them");
    let told =
        docker.does(&["inspect", "--format", "{{.Author}} {{.Comment}} {{json .Config.Cmd}}", "shop/made:1"]);
    assert_eq!(told, "me why [\"cat\",\"/etc/added\"]");
    let history = docker.does(&[
        "history",
        "--no-trunc",
        "--format",
        "{{.ID}} {{.CreatedBy}} {{.Comment}}",
        "shop/made:1",
    ]);
    assert_eq!(history.lines().next(), Some(format!("{made} cat /etc/added why").as_str()), "{history}");
    assert!(history.lines().count() >= 2, "{history}");
    docker.does(&["stop", "-t", "0", "box"]);
    let nameless = docker.does(&["commit", "box"]);
    assert_eq!(docker.does(&["run", "--rm", &nameless, "cat", "/etc/too"]), "new");

    let root = lab.directory().join("root.tar");
    docker.does(&["export", "-o", text(&root), "box"]);
    let flat = docker.does(&["import", "-c", "CMD cat /etc/too", "-m", "flat", text(&root), "flat"]);
    assert_eq!(flat, id(&docker, "flat"));
    assert_eq!(docker.does(&["run", "--rm", "flat"]), "new");
    assert_eq!(docker.does(&["history", "--format", "{{.Comment}}", "flat"]), "flat");
    docker.refuses(1, "fetches no root file systems", &["import", "http://example.com/root.tar"]);
    docker.does(&["rm", "box"]);
    docker.does(&["rmi", "shop/made:1", "flat", &nameless]);
    docker.does(&["rmi", "busybox"]);
    assert_eq!(docker.does(&["images", "-q", "-a"]), "");
    finish(lab);
}
