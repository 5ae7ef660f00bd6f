use super::{Mode, Scenario};

#[test]
fn a_scenario_is_the_same_after_a_round_through_text() {
    for seed in 0..300 {
        for mode in [Mode::Within, Mode::Beyond] {
            let scenario = Scenario::from_seed(seed, mode);
            assert_eq!(scenario.to_string().parse(), Ok(scenario));
        }
    }
}

#[test]
fn bytes_of_a_fuzzer_always_make_a_scenario() {
    for len in 0..64 {
        let bytes: Vec<u8> = (0..len).map(|i: u8| i.wrapping_mul(37)).collect();
        let scenario = Scenario::from_bytes(&bytes);
        assert_eq!(scenario.to_string().parse(), Ok(scenario));
    }
}

#[test]
fn what_makes_no_sense_is_said_with_its_line() {
    let wrong = |text: &str| text.parse::<Scenario>().unwrap_err().to_string();
    assert!(wrong("").contains("seed"));
    assert!(wrong("script").contains("line 1"));
    assert!(wrong("seed 1 sideways").contains("within"));
    assert!(wrong("seed 1 within\nwithout luck").contains("luck"));
    assert!(wrong("seed 1 within\nscript\nat 5 flood tea 3").contains("udp"));
    assert!(wrong("seed 1 within\nscript\nat 5 garbage 3").contains("too much"));
    assert!(wrong("seed 1 within\nat 5 garbage").contains("means nothing"));
}
