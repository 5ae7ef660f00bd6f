use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;

use super::*;

const UUID_BYTES: [u8; 16] = [
    0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef,
];

/// A page with these words, in the given byte order, from byte 1024 on: written down from the
/// documented layout, not with the code under test.
fn page(bytes: usize, words: [u32; 3], order: fn(u32) -> [u8; 4], bad: &[u32]) -> Vec<u8> {
    let mut page = vec![0; bytes];
    for (i, word) in words.into_iter().enumerate() {
        page[1024 + 4 * i..][..4].copy_from_slice(&order(word));
    }
    page[1036..1052].copy_from_slice(&UUID_BYTES);
    page[1052..1057].copy_from_slice(b"hello");
    for (i, word) in bad.iter().enumerate() {
        page[1536 + 4 * i..][..4].copy_from_slice(&order(*word));
    }
    page[bytes - 10..].copy_from_slice(b"SWAPSPACE2");
    page
}

fn native(word: u32) -> [u8; 4] {
    word.to_ne_bytes()
}

fn foreign(word: u32) -> [u8; 4] {
    word.swap_bytes().to_ne_bytes()
}

#[test]
fn the_documented_layout_is_read_and_written_byte_for_byte() {
    for bytes in [4096, 16384, 65536] {
        let fixture = page(bytes, [1, 63, 2], native, &[5, 62]);
        let header = SwapHeader::read(&fixture, 64).unwrap();
        assert_eq!(header.pages(), 64);
        assert_eq!(header.uuid(), UUID_BYTES);
        assert_eq!(header.label(), b"hello");
        assert!(header.bad_pages().eq([5, 62]));

        let mut written = vec![0; bytes];
        let header = SwapHeader::new(64).with_uuid(UUID_BYTES);
        let header = header.with_label("hello").unwrap();
        let header = header.with_bad_pages(&[5, 62]);
        header.write(&mut written).unwrap();
        assert!(written == fixture, "pages of {bytes} bytes");
    }
}

#[test]
fn writing_keeps_the_boot_sector_and_nothing_else() {
    let mut page = vec![0xee; 4096];
    SwapHeader::new(2).write(&mut page).unwrap();
    assert!(page[..1024].iter().all(|byte| *byte == 0xee));
    assert!(page[1024..].iter().all(|byte| *byte != 0xee));
}

#[test]
fn what_is_not_ours_is_refused_by_name() {
    let good = page(4096, [1, 63, 0], native, &[]);
    let with_magic = |magic: &[u8; 10]| {
        let mut page = good.clone();
        page[4086..].copy_from_slice(magic);
        page
    };
    let mut small = good.clone();
    small.resize(65536, 0);
    let most = 637;
    let cases: [(Vec<u8>, HeaderError); 16] = [
        (good[..1000].to_vec(), HeaderError::PageSize { bytes: 1000 }),
        (vec![0; 3000], HeaderError::PageSize { bytes: 3000 }),
        (vec![], HeaderError::PageSize { bytes: 0 }),
        (vec![0; 4096], HeaderError::NoMagic),
        (small, HeaderError::OtherPageSize { bytes: 4096 }),
        (with_magic(b"SWAP-SPACE"), HeaderError::Version0),
        (with_magic(b"S1SUSPEND\0"), HeaderError::Hibernated),
        (with_magic(b"LINHIB0001"), HeaderError::Hibernated),
        (
            page(4096, [1, 63, 0], foreign, &[]),
            HeaderError::OtherEndian,
        ),
        (page(4096, [2, 63, 0], native, &[]), HeaderError::Version(2)),
        (page(4096, [1, 0, 0], native, &[]), HeaderError::Empty),
        (
            page(4096, [1, 64, 0], native, &[]),
            HeaderError::TooLarge {
                last_page: 64,
                slots: 64,
            },
        ),
        (
            page(4096, [1, u32::MAX, 0], native, &[]),
            HeaderError::TooLarge {
                last_page: u32::MAX,
                slots: 64,
            },
        ),
        (
            page(4096, [1, 63, 638], native, &[]),
            HeaderError::TooManyBadPages { count: 638, most },
        ),
        (
            page(4096, [1, 63, u32::MAX], native, &[]),
            HeaderError::TooManyBadPages {
                count: u32::MAX,
                most,
            },
        ),
        (
            page(4096, [1, 63, 2], native, &[63, 64]),
            HeaderError::BadPageOutOfRange {
                page: 64,
                last_page: 63,
            },
        ),
    ];
    for (page, error) in cases {
        assert_eq!(SwapHeader::read(&page, 64), Err(error));
    }
    let header_is_bad = page(4096, [1, 63, 1], native, &[0]);
    assert!(matches!(
        SwapHeader::read(&header_is_bad, 64),
        Err(HeaderError::BadPageOutOfRange { page: 0, .. })
    ));
}

#[test]
fn what_would_be_refused_is_not_written() {
    let long = vec![1; 638];
    let cases = [
        (SwapHeader::new(0), HeaderError::Empty),
        (SwapHeader::new(1), HeaderError::Empty),
        (
            SwapHeader::new(9).with_bad_pages(&[9]),
            HeaderError::BadPageOutOfRange {
                page: 9,
                last_page: 8,
            },
        ),
        (
            SwapHeader::new(9).with_bad_pages(&long),
            HeaderError::TooManyBadPages {
                count: 638,
                most: 637,
            },
        ),
    ];
    for (header, error) in cases {
        let mut page = vec![0x77; 4096];
        assert_eq!(header.write(&mut page), Err(error));
        assert!(page == vec![0x77; 4096], "the page has not changed");
    }
    assert_eq!(
        SwapHeader::new(9).with_label("seventeen letters"),
        Err(HeaderError::LabelTooLong { bytes: 17 })
    );
}

/// The peers: util-linux. Where it is not installed, this says so and passes.
#[test]
fn mkswap_and_blkid_agree_with_us() {
    let (mkswap, blkid) = (Path::new("/sbin/mkswap"), Path::new("/sbin/blkid"));
    if !mkswap.exists() || !blkid.exists() {
        std::eprintln!("skipped: no /sbin/mkswap and /sbin/blkid here");
        return;
    }
    let dir = std::env::temp_dir().join(format!("swap-header-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("area");
    let printed = "01234567-89ab-cdef-0123-456789abcdef";

    std::fs::write(&file, vec![0; 64 * 4096]).unwrap();
    let made = Command::new(mkswap)
        .args(["-q", "-p", "4096", "-L", "hello", "-U", printed])
        .arg(&file)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let theirs = std::fs::read(&file).unwrap();
    let header = SwapHeader::read(&theirs[..4096], 64).unwrap();
    let ours = SwapHeader::new(64).with_uuid(UUID_BYTES);
    let ours = ours.with_label("hello").unwrap();
    assert_eq!(header, ours);

    let mut page = vec![0; 4096];
    ours.write(&mut page).unwrap();
    assert!(page == theirs[..4096], "byte for byte what mkswap writes");

    // With bad pages, too, it is still a swap area to libblkid.
    let ours = ours.with_bad_pages(&[3, 4]);
    ours.write(&mut page).unwrap();
    let mut store = vec![0; 64 * 4096];
    store[..4096].copy_from_slice(&page);
    std::fs::write(&file, store).unwrap();
    let seen = Command::new(blkid).arg("-p").arg(&file).output().unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    let seen = String::from_utf8(seen.stdout).unwrap();
    for expected in [
        r#"TYPE="swap""#,
        r#"VERSION="1""#,
        r#"LABEL="hello""#,
        printed,
    ] {
        assert!(seen.contains(expected), "{expected} in {seen}");
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        shift in 11u32..17,
        pages in 2u32..,
        uuid: [u8; 16],
        label in "[a-z]{0,16}",
        bad in prop::collection::vec(any::<prop::sample::Index>(), 0..100),
    ) {
        let bad: Vec<u32> = bad
            .iter()
            .map(|index| 1 + u32::try_from(index.index(pages as usize - 1)).unwrap())
            .collect();
        let header = SwapHeader::new(pages).with_uuid(uuid).with_label(&label).unwrap();
        let header = header.with_bad_pages(&bad);
        let mut page = vec![0xaa; 1 << shift];
        header.write(&mut page).unwrap();
        let read = SwapHeader::read(&page, pages).unwrap();
        prop_assert_eq!(&read, &header);
        prop_assert_eq!(read.label(), label.as_bytes());
        let too_large = matches!(
            SwapHeader::read(&page, pages - 1),
            Err(HeaderError::TooLarge { .. })
        );
        prop_assert!(too_large);
    }

    #[test]
    fn no_page_panics(
        mut page in prop::collection::vec(any::<u8>(), 4096),
        words: [u32; 3],
        sane in any::<bool>(),
    ) {
        page[4086..].copy_from_slice(b"SWAPSPACE2");
        for (i, word) in words.into_iter().enumerate() {
            let word = if i == 0 && sane { 1 } else { word };
            page[1024 + 4 * i..][..4].copy_from_slice(&word.to_ne_bytes());
        }
        if let Ok(header) = SwapHeader::read(&page, 64) {
            prop_assert!(header.bad_pages().all(|page| (1..64).contains(&page)));
        }
    }
}
