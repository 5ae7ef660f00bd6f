use super::*;
use std::sync::mpsc;
use std::thread;

/// `None`, loudly, where the system refuses: the program falls back there as well.
fn region(pages: usize, shares: usize) -> Option<(Region, Vec<Share>)> {
    match Uffd::open() {
        Ok(uffd) => Some(Region::new(uffd, pages, shares).expect("register memory")),
        Err(e) => {
            eprintln!("NOT TESTED: userfaultfd is refused here: {e}");
            None
        }
    }
}

/// Blocks until the program faults, and takes that one fault.
fn next_fault(region: &Region) -> Fault {
    let mut poll = libc::pollfd {
        fd: region.as_fd().as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one valid descriptor entry.
    let ready = unsafe { libc::poll(&mut poll, 1, 10_000) };
    assert_eq!(ready, 1, "no fault within ten seconds");
    let mut buf = [Fault::default(); FAULT_BATCH];
    let faults = region.read_faults(&mut buf).expect("read faults");
    assert_eq!(faults.len(), 1);
    faults[0]
}

#[test]
fn structures_have_the_kernels_sizes() {
    assert_eq!(size_of::<abi::Api>(), 24);
    assert_eq!(size_of::<abi::Range>(), 16);
    assert_eq!(size_of::<abi::Register>(), 32);
    assert_eq!(size_of::<abi::Copy>(), 40);
    assert_eq!(size_of::<abi::Writeprotect>(), 24);
    assert_eq!(size_of::<abi::Message>(), 32);
}

#[test]
fn requests_have_the_kernels_numbers() {
    assert_eq!(abi::UFFDIO_API, 0xC018_AA3F);
    assert_eq!(abi::UFFDIO_REGISTER, 0xC020_AA00);
    assert_eq!(abi::UFFDIO_WAKE, 0x8010_AA02);
    assert_eq!(abi::UFFDIO_COPY, 0xC028_AA03);
    assert_eq!(abi::UFFDIO_WRITEPROTECT, 0xC018_AA06);
}

#[test]
fn missing_page_stops_the_thread_until_it_is_filled() {
    let Some((mut region, mut shares)) = region(4, 1) else {
        return;
    };
    let share = shares.remove(0);
    let program = thread::spawn(move || share.page(2)[100]);
    let fault = next_fault(&region);
    assert_eq!(
        fault,
        Fault {
            page: 2,
            write: false,
            protected: false
        }
    );
    region
        .copy(2, &[0x5A; PAGE_SIZE], true)
        .expect("fill the page");
    assert_eq!(program.join().expect("program"), 0x5A);
}

#[test]
fn write_to_a_protected_page_faults_and_the_copy_out_has_the_bytes() {
    let Some((mut region, mut shares)) = region(2, 1) else {
        return;
    };
    let mut share = shares.remove(0);
    region
        .copy(1, &[1; PAGE_SIZE], true)
        .expect("fill the page");
    let program = thread::spawn(move || share.page_mut(1)[4095] = 7);
    assert_eq!(
        next_fault(&region),
        Fault {
            page: 1,
            write: true,
            protected: true
        }
    );

    // The write has not happened.
    let mut out = [0; PAGE_SIZE];
    region.read_page(1, &mut out).expect("copy out");
    assert_eq!(out, [1; PAGE_SIZE]);

    region
        .write_protect(1, false, true)
        .expect("make it writable");
    program.join().expect("program");
    region
        .write_protect(1, true, false)
        .expect("protect it again");
    region.read_page(1, &mut out).expect("copy out");
    assert_eq!((out[4094], out[4095]), (1, 7));
}

#[test]
fn dropped_page_faults_again_as_missing() {
    let Some((mut region, mut shares)) = region(1, 1) else {
        return;
    };
    let mut share = shares.remove(0);
    region
        .copy(0, &[3; PAGE_SIZE], true)
        .expect("fill the page");
    region.drop_page(0).expect("drop the page");
    let program = thread::spawn(move || {
        share.page_mut(0)[0] = 9;
        share.page(0)[1]
    });
    assert_eq!(
        next_fault(&region),
        Fault {
            page: 0,
            write: true,
            protected: false
        }
    );
    region
        .copy(0, &[4; PAGE_SIZE], false)
        .expect("fill it anew");
    assert_eq!(program.join().expect("program"), 4);
    region.write_protect(0, true, false).expect("protect");
    let mut out = [0; PAGE_SIZE];
    region.read_page(0, &mut out).expect("copy out");
    assert_eq!((out[0], out[1]), (9, 4));
}

#[test]
fn operations_in_the_wrong_state_are_refused() {
    let Some((mut region, _shares)) = region(1, 1) else {
        return;
    };
    let mut out = [0; PAGE_SIZE];
    let kind = |r: io::Result<()>| r.expect_err("must be refused").kind();
    assert_eq!(kind(region.read_page(0, &mut out)), io::ErrorKind::NotFound);
    assert_eq!(
        kind(region.write_protect(0, true, false)),
        io::ErrorKind::NotFound
    );
    region.copy(0, &[0; PAGE_SIZE], false).expect("fill it");
    assert_eq!(
        kind(region.copy(0, &[1; PAGE_SIZE], true)),
        io::ErrorKind::AlreadyExists
    );
    assert_eq!(
        kind(region.read_page(0, &mut out)),
        io::ErrorKind::PermissionDenied
    );
}

#[test]
fn nothing_waiting_reads_as_no_fault() {
    let Some((region, _shares)) = region(1, 1) else {
        return;
    };
    let mut buf = [Fault::default(); FAULT_BATCH];
    assert!(
        region
            .read_faults(&mut buf)
            .expect("read faults")
            .is_empty()
    );
}

#[test]
fn dropping_the_region_releases_a_thread_that_nobody_will_answer() {
    let Some((region, mut shares)) = region(1, 1) else {
        return;
    };
    let share = shares.remove(0);
    let (done, finished) = mpsc::channel();
    thread::spawn(move || done.send(share.page(0)[0]));
    next_fault(&region);
    drop(region);
    let waited = finished.recv_timeout(core::time::Duration::from_secs(10));
    assert_eq!(waited, Ok(0), "still stuck");
}

#[test]
fn shares_cover_the_region_without_overlap() {
    let Some((_region, shares)) = region(7, 3) else {
        return;
    };
    let dealt: Vec<usize> = shares.iter().flat_map(Share::pages).collect();
    assert_eq!(dealt, (0..7).collect::<Vec<_>>());
}
