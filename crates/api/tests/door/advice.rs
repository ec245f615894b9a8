//! What instances use, and which would do with less.

use crate::house::House;
use api::v1::types::{
    advice::Advice,
    instance::{CreateInstance, Instance},
    list::WaitQuery,
};
use model::{error::Code, usage::Peaks};

async fn add(house: &House, name: &str, flavor: &str, peaks: Option<Peaks>) {
    let request = CreateInstance {
        name: name.into(),
        image: Some("busybox".into()),
        flavor: Some(flavor.into()),
        ..CreateInstance::default()
    };
    house.client.create::<Instance>(&request, &WaitQuery::default()).await.unwrap();
    if let Some(peaks) = peaks {
        house.guests.peaks.lock().unwrap().insert(name.to_string(), peaks);
    }
}

fn told(advice: &Advice) -> (&str, Option<&str>) {
    (&advice.instance.name, advice.flavor.as_ref().map(|flavor| flavor.name.as_str()))
}

#[tokio::test]
async fn a_smaller_flavor_is_named_where_one_would_do_and_it_fits() {
    let house = House::open().await;
    let day = |memory_mib, cpu_millis| Some(Peaks { measured_s: 86_400, memory_mib, cpu_millis });
    add(&house, "busy", "g2.c2m4g", day(210, 1_900)).await;
    add(&house, "idle", "g2.c2m4g", day(210, 300)).await;
    add(&house, "new", "g2.c2m4g", Some(Peaks { measured_s: 60, memory_mib: 10, cpu_millis: 1 })).await;
    add(&house, "stopped", "g2.c2m4g", None).await;
    let all = house.client.advice(None, None).await.unwrap();
    let all: Vec<_> = all.iter().map(told).collect();
    assert_eq!(all, [("busy", None), ("idle", Some("g1.c1m512")), ("new", None)]);
    let one = house.client.advice(Some("idle"), None).await.unwrap();
    assert_eq!((one.len(), one[0].memory_mib, one[0].memory_peak_mib, one[0].vcpus), (1, 4_096, 210, 2));
    let error = house.client.advice(Some("none"), None).await.unwrap_err();
    assert_eq!((error.code(), error.field()), (Code::NotFound, Some("instance")));

    // What is named can be had, and then nothing is to be said any more.
    let change =
        api::v1::types::instance::UpdateInstance { flavor: Some("g1.c1m512".into()), ..Default::default() };
    house.client.update::<Instance>("idle", &change, &WaitQuery::default()).await.unwrap();
    let one = house.client.advice(Some("idle"), None).await.unwrap();
    assert_eq!((told(&one[0]), one[0].memory_mib), (("idle", None), 512));

    // Others' use is nobody's business.
    let member = house.as_role(api::v1::types::token::Role::Member).await;
    assert_eq!(member.advice(None, None).await.unwrap().len(), 3);
    assert_eq!(member.advice(None, Some("*")).await.unwrap_err().code(), Code::Forbidden);
}
