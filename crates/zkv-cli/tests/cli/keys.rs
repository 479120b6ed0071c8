//! `get`, `set`, `del` and `list`.

use crate::{Folder, contents, sorted, store_with_titles, zkv, zkv_with};

#[test]
fn a_value_is_set_printed_and_deleted() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    assert_eq!(zkv(&["set", &store, "key", "value"]).check(0), "");
    assert_eq!(zkv(&["get", &store, "key"]).check(0), "value");
    assert_eq!(zkv(&["del", &store, "key"]).check(0), "");
    zkv(&["get", &store, "key"]).check(1);
    zkv(&["del", &store, "key"]).check(1);
}

#[test]
fn a_value_is_read_from_standard_input_byte_for_byte() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    let value = b"\x00\xFF two\nlines\n";
    zkv_with(&["set", &store, "key"], value).check(0);
    assert_eq!(zkv(&["get", &store, "key"]).output, value);
    let file = folder.text("value");
    assert_eq!(zkv(&["get", &store, "key", "-o", &file]).check(0), "");
    assert_eq!(contents(&folder.path("value")), value);
}

#[test]
fn what_get_prints_is_what_set_reads() {
    let folder = Folder::new();
    let (path, store) = store_with_titles(&folder);
    let texts = ["", "a", "a\n", "a\n\n", "\n", "a\r\n", "a\r", " a ", "two\nlines"];
    for (number, text) in texts.into_iter().enumerate() {
        store.set(&format!("{number}"), text).unwrap();
        store.set_bytes(number.to_string().as_bytes(), text.as_bytes()).unwrap();
    }
    store.close().unwrap();
    let text = ["--key-type", "str", "--value-type", "str"];
    let titles = ["--collection", "titles"];
    for types in [&text[..], &titles, &[]] {
        let run = |words: [&str; 3], input: &[u8]| zkv_with(&[&words[..], types].concat(), input);
        for (number, text) in texts.into_iter().enumerate() {
            let key = number.to_string();
            if types == titles {
                // As an argument, a text is what it is.
                zkv(&[&["set", &*path, &key, text], types].concat()).check(0);
            }
            let before = run(["get", &path, &key], b"").output;
            run(["set", &path, "99"], &before).check(0);
            assert_eq!(run(["get", &path, "99"], b"").output, before, "{text:?}");
        }
    }
    let store = zkv::Store::open(&path).unwrap();
    assert_eq!(store.get::<_, String>("99").unwrap().as_deref(), texts.last().copied());
    store.close().unwrap();
    // As `echo` and `printf` give it.
    for input in ["hello\n", "hello"] {
        let set = [&["set", &*path, "k"], &text[..]].concat();
        zkv_with(&set, input.as_bytes()).check(0);
        let get = [&["get", &*path, "k"], &text[..]].concat();
        assert_eq!(zkv(&get).check(0), "hello\n");
    }
}

#[test]
fn a_key_that_is_not_there_leaves_the_output_file_alone() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    let file = folder.write("out", "old");
    zkv(&["set", &store, "key", "value"]).check(0);
    zkv(&["get", &store, "other", "-o", &file]).check(1);
    assert_eq!(contents(&folder.path("out")), b"old");
}

#[test]
fn typed_keys_and_values_are_those_of_a_program() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    let program = zkv::Store::open(folder.path("s.zkv")).unwrap();
    program.set("text", "a value").unwrap();
    program.set(&7u64, &-300i64).unwrap();
    program.close().unwrap();

    let text = ["--key-type", "str", "--value-type", "str"];
    let numbers = ["--key-type", "u64", "--value-type", "i64"];
    let with = |start: &[&str], types: &[&str]| zkv(&[start, types].concat());
    assert_eq!(with(&["get", &store, "text"], &text).check(0), "a value\n");
    assert_eq!(with(&["get", &store, "7"], &numbers).check(0), "-300\n");
    zkv(&["get", &store, "text"]).check(1);

    with(&["set", &store, "more", "second"], &text).check(0);
    with(&["set", &store, "8", "-5"], &numbers).check(0);
    zkv_with(&["set", &store, "9", "--key-type", "u64", "--value-type", "i64"], b"64\n").check(0);
    zkv(&["del", &store, "--key-type", "u64", "7"]).check(0);

    let program = zkv::Store::open(folder.path("s.zkv")).unwrap();
    assert_eq!(program.get::<_, String>("more").unwrap().as_deref(), Some("second"));
    assert_eq!(program.get::<_, i64>(&8u64).unwrap(), Some(-5));
    assert_eq!(program.get::<_, i64>(&9u64).unwrap(), Some(64));
    assert_eq!(program.get::<_, i64>(&7u64).unwrap(), None);
}

#[test]
fn deleting_goes_on_behind_a_missing_key() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    for key in ["a", "b", "c"] {
        zkv(&["set", &store, key, "value"]).check(0);
    }
    let messages = zkv(&["del", &store, "a", "missing", "c"]).check_messages(1);
    assert_eq!(messages, "zkv: 1 of 3 keys were not found\n");
    assert_eq!(zkv(&["list", &store]).check(0), "b\n");
}

#[test]
fn keys_are_listed_by_prefix_and_up_to_a_limit() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    let source = folder.write("a.tsv", "apple\t1\napricot\t2\nbanana\t3\n");
    zkv(&["import", &store, &source]).check(0);
    assert_eq!(sorted(&zkv(&["list", &store]).check(0)), ["apple", "apricot", "banana"]);
    let found = zkv(&["list", &store, "--prefix", "ap"]).check(0);
    assert_eq!(sorted(&found), ["apple", "apricot"]);
    assert_eq!(zkv(&["list", &store, "--limit", "2"]).check(0).lines().count(), 2);
    assert_eq!(zkv(&["list", &store, "--limit", "0"]).check(0), "");
    let found = zkv(&["list", &store, "--prefix", "b", "--value-type", "bytes"]).check(0);
    assert_eq!(found, "banana\t3\n");
}

#[test]
fn listing_a_type_leaves_out_what_is_another_and_says_so() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    zkv(&["set", &store, "text", "v", "--key-type", "str"]).check(0);
    zkv(&["set", &store, "raw", "v"]).check(0);
    let found = zkv(&["list", &store, "--key-type", "str"]);
    assert!(found.messages.contains("1 record was left out"), "{found:?}");
    // As `export` ends, which leaves out what has no line.
    assert_eq!(found.check(5), "text\n");
    let messages = zkv(&["list", &store, "--value-type", "str"]).check_messages(5);
    assert!(messages.contains("2 records were left out: the key or the value is"), "{messages}");
}

#[test]
fn keys_that_take_more_than_a_line_are_left_out_of_a_list_and_counted() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    for (key, value) in [("plain", "v"), ("two\nlines", "v"), ("a\ttab", "v"), ("lines", "a\nb")] {
        zkv(&["set", &store, key, value]).check(0);
    }
    let found = zkv(&["list", &store]);
    assert!(found.messages.contains("1 record was left out"), "{found:?}");
    assert_eq!(sorted(&found.check(5)), ["a\ttab", "lines", "plain"]);
    let found = zkv(&["list", &store, "--value-type", "bytes"]);
    let reason =
        "3 records were left out: a line end, or a tab in the key, does not fit into a line";
    assert!(found.messages.contains(reason), "{found:?}");
    assert_eq!(found.check(5), "plain\tv\n");
}

#[test]
fn a_minus_as_output_is_standard_output() {
    let folder = Folder::new();
    let store = folder.text("s.zkv");
    zkv(&["set", &store, "k", "v"]).check(0);
    let run = |arguments: &[&str]| {
        let mut command = crate::command(arguments);
        let output = command.current_dir(folder.0.path()).stdout(std::process::Stdio::piped());
        let output = crate::spawn(output).wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(run(&["get", &store, "k", "-o", "-"]), (Some(0), "v".into()));
    assert_eq!(run(&["export", &store, "--format", "tsv", "-o", "-"]), (Some(0), "k\tv\n".into()));
    assert_eq!(run(&["export", &store, "--format", "files", "-o", "-"]).0, Some(2));
    assert!(!folder.path("-").exists());
    assert_eq!(run(&["get", &store, "k", "-o", "./-"]), (Some(0), String::new()));
    assert!(folder.path("-").exists());
}
