use netreserve::Medium;

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
fn one_machine_in_ten_has_no_ethernet_and_those_of_the_corpus_have() {
    let ip = |seed: &u64| Scenario::from_seed(*seed, Mode::Within).machine.medium == Medium::Ip;
    let count = (0..2000).filter(ip).count();
    assert!((150..250).contains(&count), "{count} of 2000");
    // What these scenarios found must not change its meaning.
    let mut corpus = [2331, 40, 41, 43, 4675, 52, 54].iter();
    assert!(!corpus.any(ip));
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
