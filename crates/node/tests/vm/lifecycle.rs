//! Start, console, pause, resume, shutdown, reboot, kill and destroy of a real guest.

use crate::lab::{DEADLINE, Lab, Terminal, wait_seen};
use node::driver::{Driver, DriverError, Seen};
use tokio::{io::AsyncReadExt as _, time::timeout};

#[tokio::test(flavor = "multi_thread")]
async fn vm_from_start_to_shutdown() {
    let lab = Lab::new();
    let driver = lab.driver();
    let plan = lab.plan();
    assert_eq!(driver.observe(plan.id).await.unwrap(), Seen::Absent);
    assert!(matches!(driver.shutdown(plan.id).await, Err(DriverError::NotRunning)));

    driver.start(&plan).await.unwrap();
    let Seen::Running(running) = driver.observe(plan.id).await.unwrap() else { panic!("it runs") };
    assert_eq!(running.boot, 1);
    assert_eq!(running.facts["accelerator"], "tcg");
    assert!(running.facts["machine_type"].as_str().unwrap().starts_with("pc-q35-"), "{:?}", running.facts);
    assert!(running.facts["acceleration"].as_str().unwrap().contains("slower"), "{:?}", running.facts);
    // A repeated start of the same boot leaves the guest alone.
    driver.start(&plan).await.unwrap();
    let Seen::Running(again) = driver.observe(plan.id).await.unwrap() else { panic!("it runs") };
    assert_eq!(again.pid, running.pid);

    let mut terminal = Terminal::open(&driver, plan.id).await;
    terminal.log_in().await;
    // The guest reads its config drive while we log in.
    terminal.run("while [ $(hostname) = micro ]; do usleep 100000; done").await;
    let facts = terminal
        .run("nproc; hostname; cat /sys/class/dmi/id/product_name /sys/class/dmi/id/product_uuid")
        .await;
    for expected in ["\n2\r\n", "micro-of-holm", "OpenStack Compute", &plan.id.to_string()] {
        assert!(facts.contains(expected), "{expected:?} in {facts}");
    }
    let log = String::from_utf8(driver.console_log(plan.id, 1 << 20).await.unwrap()).unwrap();
    assert!(log.contains("OpenStack Compute"), "{log}");
    assert_eq!(driver.console_log(plan.id, 10).await.unwrap().len(), 10);

    for _ in 0..2 {
        driver.pause(plan.id).await.unwrap();
        assert!(matches!(driver.observe(plan.id).await.unwrap(), Seen::Paused(_)));
    }
    terminal.send("echo after'-'the-pause\n").await;
    for _ in 0..2 {
        driver.resume(plan.id).await.unwrap();
        assert!(matches!(driver.observe(plan.id).await.unwrap(), Seen::Running(_)));
    }
    terminal.expect("after-the-pause", DEADLINE).await;

    let mut picture = driver.vnc(plan.id).await.unwrap();
    let mut greeting = [0; 12];
    timeout(DEADLINE, picture.read_exact(&mut greeting)).await.expect("VNC answers").unwrap();
    assert_eq!(&greeting, b"RFB 003.008\n");

    driver.shutdown(plan.id).await.unwrap();
    let seen = wait_seen(&driver, plan.id, |seen| matches!(seen, Seen::Stopped(_))).await;
    let Seen::Stopped(exit) = seen else { panic!("it stopped") };
    assert_eq!((exit.cause.as_str(), exit.failed, exit.boot), ("powered off by the guest", false, 1));
    assert!(lab.cgroups.processes(&plan.id.to_string()).unwrap().is_empty());

    driver.destroy(plan.id).await.unwrap();
    driver.destroy(plan.id).await.unwrap();
    assert_eq!(driver.observe(plan.id).await.unwrap(), Seen::Absent);
    assert_eq!(driver.list().await.unwrap(), []);
    assert!(!lab.cgroups.exists(&plan.id.to_string()).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn vm_killed_and_booted_again() {
    let lab = Lab::new();
    let driver = lab.driver();
    let mut plan = lab.plan();
    driver.start(&plan).await.unwrap();
    driver.kill(plan.id).await.unwrap();
    driver.kill(plan.id).await.unwrap();
    let Seen::Stopped(exit) = driver.observe(plan.id).await.unwrap() else { panic!("it stopped") };
    assert_eq!((exit.cause.as_str(), exit.failed, exit.boot), ("killed on request", false, 1));

    // The next boot, and the one after without a stop between.
    for boot in [2, 3] {
        plan.boot = boot;
        driver.start(&plan).await.unwrap();
        let Seen::Running(running) = driver.observe(plan.id).await.unwrap() else { panic!("it runs") };
        assert_eq!(running.boot, boot);
    }
    driver.reset(plan.id).await.unwrap();
    assert!(matches!(driver.observe(plan.id).await.unwrap(), Seen::Running(_)));
    driver.destroy(plan.id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn vm_that_panics_is_seen_as_failed() {
    let lab = Lab::new();
    let driver = lab.driver();
    let plan = lab.plan();
    driver.start(&plan).await.unwrap();
    let mut terminal = Terminal::open(&driver, plan.id).await;
    terminal.log_in().await;
    // Every CPU stops for good; the kernel tells by its pvpanic driver.
    terminal.send("echo c > /proc/sysrq-trigger\n").await;
    let seen = wait_seen(&driver, plan.id, |seen| matches!(seen, Seen::Stopped(_))).await;
    let Seen::Stopped(exit) = seen else { panic!("it stopped") };
    assert_eq!((exit.cause.as_str(), exit.failed), ("the guest's kernel panicked", true));
    driver.destroy(plan.id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn vm_that_cannot_start_says_why() {
    let lab = Lab::new();
    let driver = lab.driver();
    let mut plan = lab.plan();
    plan.disks = vec![lab.disk("disk")];
    std::fs::remove_file(&plan.disks[0].path).unwrap();
    let error = driver.start(&plan).await.unwrap_err();
    assert!(error.to_string().contains("opening the disk"), "{error}");

    // A file that is no qcow2: QEMU's own words reach the user.
    let mut disk = lab.disk("no-qcow2");
    disk.format = model::plan::DiskFormat::Qcow2;
    plan.disks = vec![disk];
    let error = driver.start(&plan).await.unwrap_err();
    assert!(error.to_string().contains("qcow2"), "{error}");
    assert!(lab.cgroups.processes(&plan.id.to_string()).unwrap().is_empty());
    assert!(!matches!(driver.observe(plan.id).await.unwrap(), Seen::Running(_)));
    driver.destroy(plan.id).await.unwrap();
}

/// The same plan with a disk of its own over the micro guest's image, booted by firmware.
fn from_disk(lab: &Lab, uefi: bool) -> model::plan::InstancePlan {
    let mut plan = lab.plan();
    let image = crate::lab::micro_image().join("disk.qcow2").canonicalize().unwrap();
    let mut disk = lab.disk("root.qcow2");
    let arguments = ["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"];
    let made =
        std::process::Command::new("qemu-img").args(arguments).args([&image, &disk.path]).status().unwrap();
    assert!(made.success());
    disk.format = model::plan::DiskFormat::Qcow2;
    disk.backing = vec![model::plan::BackingFile { path: image, format: model::plan::DiskFormat::Qcow2 }];
    disk.boot_index = Some(0);
    plan.disks = vec![disk];
    if let model::plan::Body::Vm(vm) = &mut plan.body {
        vm.boot = model::plan::BootPlan::Firmware { uefi };
    }
    plan
}

#[tokio::test(flavor = "multi_thread")]
async fn vm_boots_from_its_disk_by_firmware() {
    let lab = Lab::new();
    let driver = lab.driver();
    let plan = from_disk(&lab, false);
    driver.start(&plan).await.unwrap();
    let mut terminal = Terminal::open(&driver, plan.id).await;
    terminal.log_in().await;
    let disks = terminal.run("cat /sys/block/vda/serial; ls /dev/vdb; mount | grep /state").await;
    assert!(disks.contains(&plan.disks[0].serial) && disks.contains("/dev/vdb\r"), "{disks}");
    driver.destroy(plan.id).await.unwrap();
    assert!(plan.disks[0].path.exists(), "the user's disk stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn vm_with_uefi_has_variables_of_its_own() {
    let lab = Lab::new();
    let driver = lab.driver();
    let plan = from_disk(&lab, true);
    driver.start(&plan).await.unwrap();
    assert!(matches!(driver.observe(plan.id).await.unwrap(), Seen::Running(_)));
    let variables = lab.settings().state.join(plan.id.to_string()).join("nvram.fd");
    assert!(variables.exists());
    // The firmware runs: it writes its variables.
    let before = std::fs::read(driver.host_facts().await.unwrap().uefi.unwrap().variables).unwrap();
    let deadline = std::time::Instant::now() + crate::lab::BOOT_DEADLINE;
    while std::fs::read(&variables).unwrap() == before {
        assert!(std::time::Instant::now() < deadline, "the firmware wrote nothing");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    driver.destroy(plan.id).await.unwrap();
    assert!(!variables.exists());
}
