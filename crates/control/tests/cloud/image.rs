//! Images: who may use them, what they may be called, and when they may be started from.

use crate::cloud;
use control::{
    Caller, Control, Role,
    image::{Import, NewImage},
};
use model::{
    error::{Code, Fault},
    id::{NodeId, ProjectId},
    image::{
        Answer, Image, ImageContent, ImageKind, ImageSource, ImageState, ImageStatus, MEMBERS_MAX, TAGS_MAX,
        Visibility,
    },
    meta::Labels,
};
use store::Tx;

async fn seen(control: &Control, image: &Image, state: ImageState) {
    let mut tx = Tx::new();
    let at = control.now();
    let (id, node) = (image.meta.id, NodeId::from_random([9; 16]));
    tx.put(&ImageStatus { id, node, state, asked: image.asked, stale: None, at });
    control.store().commit(tx).await.unwrap();
}

async fn project(control: &Control, caller: &Caller, name: &str) -> Caller {
    control.create_project(caller, name, "", Labels::new()).await.unwrap();
    let id = control.find_project(caller, name).unwrap().record.meta.id;
    Caller { project: id, role: Role::Member, ..caller.clone() }
}

fn disk(name: &str) -> NewImage {
    NewImage::to_be_sent(name, ImageKind::Disk)
}

fn lists(control: &Control, caller: &Caller, image: &Image) -> bool {
    control.list::<Image>(caller).iter().any(|i| i.record.meta.id == image.meta.id)
}

fn finds(control: &Control, caller: &Caller, image: &Image) -> bool {
    control.find::<Image>(caller, &image.meta.id.to_string()).is_ok()
}

#[tokio::test]
async fn who_may_use_an_image_is_its_visibility_and_its_members() {
    let (control, admin) = cloud().await;
    let owner = Caller { role: Role::Member, ..admin.clone() };
    let other = project(&control, &admin, "other").await;
    let image = control.create_image(&owner, disk("d")).await.unwrap();
    let id = image.meta.id.to_string();
    let with = other.project.to_string();
    let refused = control.share_image(&owner, "d", &with).await.unwrap_err();
    assert_eq!(refused.code, Code::Conflict);
    for (visibility, found, listed) in [
        (Visibility::Private, false, false),
        (Visibility::Shared, false, false),
        (Visibility::Community, true, false),
        (Visibility::Public, true, true),
    ] {
        let set = |image: &mut Image| {
            image.visibility = visibility;
            Ok(())
        };
        if visibility == Visibility::Public {
            assert_eq!(control.update_image(&owner, "d", set).await.unwrap_err().code, Code::Forbidden);
        }
        control.update_image(&admin, "d", set).await.unwrap();
        assert_eq!(finds(&control, &other, &image), found, "{visibility:?}");
        assert_eq!(lists(&control, &other, &image), listed, "{visibility:?}");
    }
    let share = |image: &mut Image| {
        image.visibility = Visibility::Shared;
        Ok(())
    };
    control.update_image(&owner, "d", share).await.unwrap();
    control.share_image(&owner, "d", &with).await.unwrap();
    assert_eq!(control.share_image(&owner, "d", &with).await.unwrap_err().code, Code::Taken);
    assert!(finds(&control, &other, &image) && !lists(&control, &other, &image));
    // The owner does not answer for those it shares with, and members change nothing else.
    let own_answer = control.answer_share(&owner, "d", &with, Answer::Accepted).await.unwrap_err();
    assert_eq!(own_answer.code, Code::Forbidden);
    assert_eq!(control.update_image(&other, &id, |_| Ok(())).await.unwrap_err().code, Code::Forbidden);
    for (answer, listed) in [(Answer::Accepted, true), (Answer::Rejected, false), (Answer::Accepted, true)] {
        control.answer_share(&other, &id, &with, answer).await.unwrap();
        assert_eq!(lists(&control, &other, &image), listed);
        assert_eq!(control.image_members(&owner, "d").unwrap()[0].1.answer, answer);
    }
    assert_eq!(control.image_members(&other, &id).unwrap().len(), 1);
    control.unshare_image(&owner, "d", &with).await.unwrap();
    assert!(!finds(&control, &other, &image));
    assert_eq!(control.unshare_image(&owner, "d", &with).await.unwrap_err().code, Code::NotFound);
    let nobody = ProjectId::from_random([3; 16]).to_string();
    assert_eq!(control.share_image(&owner, "d", &nobody).await.unwrap_err().code, Code::NotFound);
}

#[tokio::test]
async fn tags_members_and_properties_have_limits() {
    let (control, caller) = cloud().await;
    let tags = |count: usize| (0..count).map(|n| format!("t{n}")).collect();
    control.create_image(&caller, NewImage { tags: tags(TAGS_MAX), ..disk("a") }).await.unwrap();
    let many = control.create_image(&caller, NewImage { tags: tags(TAGS_MAX + 1), ..disk("b") }).await;
    assert_eq!(many.unwrap_err().code, Code::TooLarge);
    for wrong in ["", "a\nb", &"x".repeat(256)] {
        let new = NewImage { tags: [wrong.to_string()].into(), ..disk("c") };
        let error = control.create_image(&caller, new).await.unwrap_err();
        assert_eq!((error.code, error.field.as_deref()), (Code::Invalid, Some("tags")));
    }
    let properties = (0..200).map(|n| (format!("k{n}"), String::new())).collect();
    let error = control.create_image(&caller, NewImage { properties, ..disk("p") }).await.unwrap_err();
    assert_eq!(error.field.as_deref(), Some("properties"));
    let shared = NewImage { visibility: Visibility::Shared, ..disk("s") };
    control.create_image(&caller, shared).await.unwrap();
    let fill = |image: &mut Image| {
        for n in 0..MEMBERS_MAX {
            let mut bytes = [1; 16];
            bytes[..2].copy_from_slice(&(n as u16).to_be_bytes());
            let member = model::image::Member {
                answer: Answer::Pending,
                created_at: jiff::Timestamp::UNIX_EPOCH,
                updated_at: jiff::Timestamp::UNIX_EPOCH,
            };
            image.members.insert(ProjectId::from_random(bytes), member);
        }
        Ok(())
    };
    control.update_image(&caller, "s", fill).await.unwrap();
    let other = project(&control, &caller, "other").await;
    let error = control.share_image(&caller, "s", &other.project.to_string()).await.unwrap_err();
    assert_eq!(error.code, Code::TooLarge);
}

#[tokio::test]
async fn names_are_their_own_unless_they_may_repeat() {
    let (control, caller) = cloud().await;
    control.create_image(&caller, disk("x")).await.unwrap();
    assert_eq!(control.create_image(&caller, disk("x")).await.unwrap_err().code, Code::Taken);
    let again = NewImage { name_repeats: true, ..disk("x") };
    let second = control.create_image(&caller, again.clone()).await.unwrap();
    let third = control.create_image(&caller, again).await.unwrap();
    assert_eq!(control.find::<Image>(&caller, "x").unwrap_err().code, Code::Conflict);
    // What has no claim on the name gives none back.
    control.delete_image(&caller, &second.meta.id.to_string()).await.unwrap();
    control.delete_image(&caller, &third.meta.id.to_string()).await.unwrap();
    assert_eq!(control.create_image(&caller, disk("x")).await.unwrap_err().code, Code::Taken);
    control.delete_image(&caller, "x").await.unwrap();
    control.create_image(&caller, disk("x")).await.unwrap();
}

#[tokio::test]
async fn of_several_pulls_at_once_one_makes_the_image() {
    let (control, caller) = cloud().await;
    let pull = || control.create_image(&caller, NewImage::from_registry("busybox"));
    let (a, b, c) = tokio::join!(pull(), pull(), pull());
    let ids = [a, b, c].map(|made| made.unwrap().meta.id);
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(control.list::<Image>(&caller).len(), 1);
}

#[tokio::test]
async fn a_withdrawn_image_starts_nothing() {
    let (control, caller) = cloud().await;
    let image = control.create_image(&caller, disk("d")).await.unwrap();
    assert_eq!(control.set_image_deactivated(&caller, "d", true).await.unwrap_err().code, Code::Conflict);
    seen(&control, &image, ImageState::Ready(ImageContent::default())).await;
    control.set_image_deactivated(&caller, "d", true).await.unwrap();
    let vm = |name: &str| control::instance::NewInstance {
        kind: model::instance::Kind::Vm,
        image: Some("d".into()),
        flavor: Some("g1.c1m512".into()),
        containers: vec![],
        ..crate::container(name)
    };
    let refused = control.create_instance(&caller, vm("a")).await.unwrap_err();
    assert!(refused.message.contains("deactivated"), "{refused:?}");
    control.set_image_deactivated(&caller, "d", false).await.unwrap();
    control.create_instance(&caller, vm("a")).await.unwrap();
}

#[tokio::test]
async fn an_import_is_asked_for_once_and_again_after_it_failed() {
    let (control, caller) = cloud().await;
    let image = control.create_image(&caller, disk("d")).await.unwrap();
    let web = |url: &str| Import::Web { url: url.into() };
    for wrong in ["ftp://x/y", "https://", "https:///x", "http://a b", "file:///etc/passwd"] {
        let error = control.import_image(&caller, "d", web(wrong)).await.unwrap_err();
        assert_eq!(error.field.as_deref(), Some("url"), "{wrong}");
    }
    let empty = control.import_image(&caller, "d", Import::Staged).await.unwrap_err();
    assert_eq!(empty.code, Code::Conflict);
    seen(&control, &image, ImageState::Staged { size_bytes: 5 }).await;
    assert_eq!(control.expect_upload(&caller, "d").await.unwrap_err().code, Code::Conflict);
    let mixed = control.import_image(&caller, "d", web("https://x/y")).await.unwrap_err();
    assert_eq!(mixed.code, Code::Conflict);
    let asked = control.import_image(&caller, "d", Import::Staged).await.unwrap();
    assert!(matches!(&asked.source, ImageSource::Staged { asked } if asked.request_id == "r"));
    assert_eq!(control.import_image(&caller, "d", Import::Staged).await.unwrap_err().code, Code::Conflict);
    let fault =
        Fault { code: Code::Invalid, message: "no".into(), hint: String::new(), since: control.now() };
    seen(&control, &image, ImageState::Failed(fault)).await;
    assert_eq!(control.expect_upload(&caller, "d").await.unwrap().source, ImageSource::Upload);
    control.import_image(&caller, "d", web("https://x/y")).await.unwrap();
    seen(&control, &image, ImageState::Ready(ImageContent::default())).await;
    let done = control.import_image(&caller, "d", web("https://x/y")).await.unwrap_err();
    assert!(done.message.contains("has its content"), "{done:?}");
}

#[tokio::test]
async fn an_image_deleted_while_something_stands_on_it_goes_with_that() {
    let (control, caller) = cloud().await;
    let image = control.create_image(&caller, disk("d")).await.unwrap();
    seen(&control, &image, ImageState::Ready(ImageContent::default())).await;
    let vm = |name: &str, image: &str| control::instance::NewInstance {
        kind: model::instance::Kind::Vm,
        image: Some(image.into()),
        flavor: Some("g1.c1m512".into()),
        containers: vec![],
        ..crate::container(name)
    };
    let instance = control.create_instance(&caller, vm("a", "d")).await.unwrap();
    assert_eq!(control.delete_image(&caller, "d").await.unwrap_err().code, Code::InUse);
    control.delete_image_when_unused(&caller, "d").await.unwrap();
    let id = image.meta.id.to_string();
    let again = control.delete_image_when_unused(&caller, &id).await.unwrap_err();
    assert_eq!(again.code, Code::NotFound);
    assert!(control.create_instance(&caller, vm("b", &id)).await.is_err());
    // Its name and its place in the quota are free.
    assert_eq!(control.quota(caller.project).1.of(model::quota::Resource::Images), 0);
    control.create_image(&caller, disk("d")).await.unwrap();
    control.sweep_images().await.unwrap();
    assert!(control.get::<Image>(image.meta.id).is_some());
    control.delete_instance(&caller, "a").await.unwrap();
    let gone = serde_json::json!({
        "id": instance.meta.id, "node": NodeId::from_random([9; 16]), "state": model::instance::State::Absent,
        "boot": 0, "gone": true, "at": control.now(),
    });
    let status: model::instance::InstanceStatus = serde_json::from_value(gone).unwrap();
    let mut tx = Tx::new();
    tx.put(&status);
    control.store().commit(tx).await.unwrap();
    control.finalize_instance(instance.meta.id).await.unwrap();
    control.sweep_images().await.unwrap();
    assert!(control.get::<Image>(image.meta.id).is_none());
    assert!(control.image_status(image.meta.id).is_none());
    assert_eq!(control.quota(caller.project).1.of(model::quota::Resource::Images), 1);
}

#[tokio::test]
async fn a_name_moves_and_is_taken_away() {
    use control::image::Untagged;
    let (control, admin) = cloud().await;
    let caller = Caller { role: Role::Member, ..admin.clone() };
    let content = |digit: &str| {
        ImageState::Ready(ImageContent {
            digest: format!("sha256:{}", digit.repeat(64)),
            ..ImageContent::default()
        })
    };
    let pull = async |name: &str, digit: &str| {
        let image = control.create_image(&caller, NewImage::from_registry(name)).await.unwrap();
        seen(&control, &image, content(digit)).await;
        image
    };
    let (one, two) = (pull("one", "1").await, pull("two", "2").await);
    let tagged = control.tag_image(&caller, &one.meta.id.to_string(), "app").await.unwrap();
    assert_eq!(tagged.source, ImageSource::Content { digest: format!("sha256:{}", "1".repeat(64)) });
    assert_eq!(tagged.reference(), "app:latest".parse().ok());
    let unready = control.tag_image(&caller, &tagged.meta.id.to_string(), "other").await.unwrap_err();
    assert_eq!(unready.code, Code::Conflict, "{unready}");
    let taken = control.tag_image(&caller, &two.meta.id.to_string(), "app").await.unwrap_err();
    assert_eq!(taken.code, Code::Conflict, "it is still being made: {taken}");
    seen(&control, &tagged, content("1")).await;
    let again = control.tag_image(&caller, &one.meta.id.to_string(), "app:latest").await.unwrap();
    assert_eq!(again.meta.id, tagged.meta.id, "it has the name already");

    let moved = control.tag_image(&caller, &two.meta.id.to_string(), "app").await.unwrap();
    assert!(moved.meta.id != tagged.meta.id && moved.reference() == "app:latest".parse().ok());
    let left = control.get::<Image>(tagged.meta.id).unwrap().record.clone();
    assert!(left.untagged && left.reference().is_none(), "{left:?}");
    // What stands on an image leaves it there without its name, and only where the content has another one.
    assert_eq!(control.untag_image(&caller, tagged.meta.id, false).await.unwrap(), Untagged::Deleted);
    for (name, code) in [("x@sha256:1", Code::Invalid), ("Not:Good:Name", Code::Invalid)] {
        let refused = control.tag_image(&caller, &one.meta.id.to_string(), name).await.unwrap_err();
        assert_eq!(refused.code, code, "{name}: {refused}");
    }
    let vm = control.create_image(&caller, disk("vm")).await.unwrap();
    let refused = control.tag_image(&caller, &vm.meta.id.to_string(), "app").await.unwrap_err();
    assert_eq!(refused.code, Code::Conflict, "{refused}");

    // A name given here is the registry's again when it is pulled, in the place of what it was.
    seen(&control, &moved, content("2")).await;
    let pulled = control.create_image(&caller, NewImage::from_registry("app")).await.unwrap();
    assert_eq!((pulled.meta.id, pulled.asked), (moved.meta.id, moved.asked + 1));
    assert!(matches!(pulled.source, ImageSource::Registry { .. }));
}

#[tokio::test]
async fn a_name_whose_pull_failed_is_free_and_one_that_is_pulled_is_not() {
    let (control, admin) = cloud().await;
    let caller = Caller { role: Role::Member, ..admin };
    let digest = format!("sha256:{}", "1".repeat(64));
    let pulled = control.create_image(&caller, NewImage::from_registry("app")).await.unwrap();
    let arriving = ImageState::Fetching { done_bytes: 1, total_bytes: 2 };
    for state in [None, Some(arriving)] {
        if let Some(state) = state {
            seen(&control, &pulled, state).await;
        }
        let refused = control.name_content(&caller, &digest, Some("app")).await.unwrap_err();
        assert_eq!(refused.code, Code::Conflict, "{refused}");
    }
    for code in [Code::NotFound, Code::Unavailable] {
        let fault = Fault { code, message: "no".into(), hint: String::new(), since: control.now() };
        let before = control.get::<Image>(pulled.meta.id).unwrap().record.clone();
        seen(&control, &before, ImageState::Failed(fault)).await;
        let named = control.name_content(&caller, &digest, Some("app")).await.unwrap();
        assert_eq!(named.source, ImageSource::Content { digest: digest.clone() });
        assert_eq!((named.meta.id, named.asked), (pulled.meta.id, before.asked + 1));
        // Its failure is told no more, and it counts once.
        let status = control.image_status(named.meta.id).unwrap();
        assert_eq!(named.state(Some(&status.record)), &ImageState::Waiting);
        assert_eq!(control.quota(caller.project).1.of(model::quota::Resource::Images), 1);
    }
}

#[tokio::test]
async fn who_uses_an_image_is_told_as_far_as_it_is_seen() {
    use model::image::{Hold, OciContent};
    let (control, admin) = cloud().await;
    let owner = Caller { role: Role::Member, ..admin.clone() };
    let other = project(&control, &admin, "other").await;
    let make = async |caller: &Caller, name: &str, layers: &[&str]| {
        let new = NewImage { visibility: Visibility::Public, ..NewImage::to_be_sent(name, ImageKind::Oci) };
        let image = control.create_image(&Caller { role: Role::Admin, ..caller.clone() }, new).await.unwrap();
        let oci = OciContent {
            diff_ids: layers.iter().map(|id| (*id).to_string()).collect(),
            ..OciContent::default()
        };
        let content = ImageContent { digest: name.into(), oci: Some(oci), ..ImageContent::default() };
        seen(&control, &image, ImageState::Ready(content)).await;
        image
    };
    let base = make(&owner, "base", &["a", "b"]).await;
    make(&owner, "app", &["a", "b", "c"]).await;
    make(&owner, "cousin", &["a", "x"]).await;
    make(&owner, "stranger", &["y"]).await;
    let from_base = |name: &str| control::instance::NewInstance {
        containers: vec![control::instance::ContainerAsked {
            image: base.meta.id.to_string(),
            ..Default::default()
        }],
        ..crate::container(name)
    };
    for name in ["one", "two", "three", "four"] {
        control.create_instance(&owner, from_base(name)).await.unwrap();
    }
    control.create_instance(&other, from_base("theirs")).await.unwrap();
    let told = |caller: &Caller| -> Vec<(String, Hold, usize)> {
        let users = control.users_of_image(caller, "base").unwrap();
        let mut told: Vec<_> =
            users.iter().map(|user| (user.to_string(), user.hold, user.layers.len())).collect();
        told.sort_by_key(|(name, ..)| name.clone());
        told
    };
    let expected = [
        ("image app", Hold::BuiltOn, 2),
        ("image cousin", Hold::SharesLayers, 1),
        ("instance four", Hold::StandsOn, 0),
        ("instance one", Hold::StandsOn, 0),
        ("instance theirs", Hold::StandsOn, 0),
        ("instance three", Hold::StandsOn, 0),
        ("instance two", Hold::StandsOn, 0),
    ];
    assert_eq!(told(&owner), expected.map(|(name, hold, layers)| (name.to_string(), hold, layers)));
    let theirs: Vec<String> = told(&other).into_iter().map(|(name, ..)| name).collect();
    assert_eq!(
        theirs,
        ["image app", "image cousin", "instance theirs"],
        "who has it learns nothing of others"
    );

    let refused = control.delete_image(&owner, "base").await.unwrap_err();
    assert_eq!(refused.code, Code::InUse);
    assert!(refused.message.ends_with(", 2 more") && !refused.message.contains("theirs"), "{refused}");
    assert!(refused.hint.contains("holm image users base"), "{refused:?}");
    for name in ["one", "two", "three", "four"] {
        control.delete_instance(&owner, name).await.unwrap();
    }
    // What is going still stands on it.
    let refused = control.delete_image(&owner, "base").await.unwrap_err();
    assert!(refused.message.starts_with("image base is used by instance "), "{refused}");
    control.delete_image(&owner, "app").await.unwrap();
}
