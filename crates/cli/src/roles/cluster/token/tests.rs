use super::*;

fn token(address: &str) -> Token {
    let fingerprint = Fingerprint(std::array::from_fn(|number| u8::try_from(number * 7).unwrap()));
    Token { address: address.parse().unwrap(), fingerprint, secret: Secret([0x5a; SECRET]) }
}

#[test]
fn a_token_comes_back_as_it_was() {
    for (address, length) in [("192.0.2.1:7499", 96), ("[2001:db8::7]:1", 115), ("0.0.0.0:65535", 96)] {
        let token = token(address);
        let text = token.to_string();
        assert_eq!(text.len(), length, "{text}");
        let again = Token::parse(&format!(" {text}\n")).unwrap();
        assert_eq!((again.address, again.fingerprint), (token.address, token.fingerprint));
        assert!(again.secret.is(&token.secret));
    }
}

#[test]
fn its_bytes_are_written_down() {
    // A format is for ever: who invites and who joins may be of different versions.
    let expected =
        "sr1aadq4fi4emvdcob7izgviw3cnfyho7ufrsjzviniv63l3rgl2lmvuws2ljnfuws2ljnfuws2ljnfvqaaaiar2s2cbs7cu";
    assert_eq!(token("192.0.2.1:7499").to_string(), expected);
}

#[test]
fn every_changed_character_is_noticed() {
    let text = token("192.0.2.1:7499").to_string();
    for position in 0..text.len() {
        for other in ALPHABET.iter().chain(b"018AZ-_ ") {
            let mut changed = text.clone().into_bytes();
            if changed[position] != *other {
                changed[position] = *other;
                let changed = String::from_utf8(changed).unwrap();
                // Blanks around it are not of it.
                assert!(Token::parse(&changed).is_err(), "{changed}");
            }
        }
    }
}

#[test]
fn what_is_shorter_longer_or_exchanged_is_noticed() {
    let text = token("192.0.2.1:7499").to_string();
    for position in 0..text.len() {
        let mut shorter = text.clone();
        shorter.remove(position);
        assert!(Token::parse(&shorter).is_err(), "{shorter}");
        let mut longer = text.clone();
        longer.insert(position, 'a');
        assert!(Token::parse(&longer).is_err(), "{longer}");
        assert!(Token::parse(&text[..position]).is_err());
        let mut exchanged = text.clone().into_bytes();
        exchanged.swap(position, (position + 1) % text.len());
        let exchanged = String::from_utf8(exchanged).unwrap();
        assert!(exchanged == text || Token::parse(&exchanged).is_err(), "{exchanged}");
    }
    for text in ["", "sr1", "sr", "-", "hello", "sr1aaaaaaaaaaaaaaaa"] {
        assert!(Token::parse(text).is_err(), "{text}");
    }
}

#[test]
fn secrets_differ() {
    assert!(!Secret::random().is(&Secret::random()));
    assert!(!Secret([0; SECRET]).is(&Secret([1; SECRET])));
}
