//! Dockerfiles and what becomes of them: the config of the image, what is done to files, or the error.

use model::dockerfile::{
    Dockerfile, DockerfileError,
    ignore::{Ignore, fits_path},
    instruction::Source,
    progress::{Progress, Work},
    scope::Globals,
    stage::Base,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The config of every base image here.
fn base() -> Value {
    json!({"Env": ["PATH=/bin"], "Cmd": ["sh"], "OnBuild": []})
}

/// What is left of a build: for each step of the last stage what it does to files, and the config.
fn build(text: &str, args: &[&str]) -> Result<(Vec<String>, Value), DockerfileError> {
    let given: BTreeMap<String, String> = args
        .iter()
        .map(|pair| pair.split_once('=').expect("name=value"))
        .map(|(n, v)| (n.into(), v.into()))
        .collect();
    let file = Dockerfile::read(text.as_bytes())?;
    let globals = Globals::of(&file, &given, "amd64")?;
    let plan = file.plan(given.get("TARGET").map(String::as_str), &globals, &|_| false)?;
    let mut done: BTreeMap<usize, Value> = BTreeMap::new();
    let mut works = vec![];
    for planned in &plan {
        let stage = &file.stages[planned.stage];
        let config = match &planned.base {
            Base::Scratch => json!({}),
            Base::Stage(at) => done[at].clone(),
            Base::Image(name) if name == "triggers" => json!({"OnBuild": ["RUN first", "COPY a /b"]}),
            Base::Image(_) | Base::Given(_) => base(),
        };
        works = vec![format!("FROM {:?}", planned.base)];
        let mut progress = Progress::new(&globals, file.escape, config);
        let triggers = progress.triggers(stage.line)?;
        for step in triggers.iter().chain(&stage.steps) {
            let told = progress.step(step)?;
            match told.work {
                Work::Nothing => {}
                Work::Run { argv, args, is_offline, .. } => {
                    let args: Vec<String> = args.iter().map(|(n, v)| format!("{n}={v} ")).collect();
                    works.push(format!(
                        "RUN {}{argv:?}{}",
                        args.concat(),
                        if is_offline { " offline" } else { "" }
                    ));
                }
                Work::Directory(path) => works.push(format!("DIR {path}")),
                Work::Copy(copy) => {
                    let sources: Vec<String> = copy
                        .sources
                        .iter()
                        .map(|source| match source {
                            Source::Path(path) => path.clone(),
                            Source::Web(url) => format!("web:{url}"),
                            Source::Text { name, content, .. } => format!("{name}:{content:?}"),
                        })
                        .collect();
                    let (target, _) = progress.target(&copy.target);
                    let flags = [("from", &copy.from), ("chown", &copy.chown), ("chmod", &copy.chmod)];
                    let flags: Vec<String> =
                        flags.iter().filter_map(|(n, v)| Some(format!("{n}={} ", v.as_ref()?))).collect();
                    works.push(format!(
                        "{} {}{} -> {target}",
                        if copy.is_add { "ADD" } else { "COPY" },
                        flags.concat(),
                        sources.join(" ")
                    ));
                }
            }
        }
        if let Some(author) = &progress.author {
            works.push(format!("AUTHOR {author}"));
        }
        done.insert(planned.stage, progress.config);
    }
    let last = plan.last().expect("a stage").stage;
    Ok((works, done.remove(&last).expect("built")))
}

/// What a config has that its base has not.
fn changes(config: &Value) -> Value {
    let base = base();
    let fields = config.as_object().expect("an object");
    let changed = fields.iter().filter(|(name, value)| base.get(name.as_str()) != Some(value));
    let mut changed: serde_json::Map<String, Value> = changed.map(|(n, v)| (n.clone(), v.clone())).collect();
    if fields.get("Cmd").is_none() {
        changed.insert("Cmd".into(), Value::Null);
    }
    changed.into()
}

/// Builds texts behind `FROM a`, and compares what of the config is another than the base's.
fn check_configs(cases: &[(&str, Value)]) {
    for (text, wanted) in cases {
        let text = match text.strip_prefix("# escape=`\n") {
            Some(rest) => format!("# escape=`\nFROM a\n{}", rest.replace("A=1", "A=1`\n")),
            None => format!("FROM a\n{text}"),
        };
        let (_, config) = build(&text, &["GIVEN=by hand", "HTTP_PROXY=http://proxy"])
            .unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(changes(&config), *wanted, "{text}");
    }
}

#[test]
fn programs_and_variables() {
    let path = "PATH=/bin";
    check_configs(&[
        ("", json!({})),
        ("CMD [\"serve\", \"-x\"]", json!({"Cmd": ["serve", "-x"]})),
        ("CMD serve -x", json!({"Cmd": ["/bin/sh", "-c", "serve -x"]})),
        ("CMD [\"broken]", json!({"Cmd": ["/bin/sh", "-c", "[\"broken]"]})),
        ("cmd a\nCMD b", json!({"Cmd": ["/bin/sh", "-c", "b"]})),
        ("CMD []", json!({"Cmd": []})),
        ("CMD echo $HOME", json!({"Cmd": ["/bin/sh", "-c", "echo $HOME"]})),
        ("ENTRYPOINT [\"run\"]", json!({"Entrypoint": ["run"], "Cmd": null})),
        ("CMD [\"a\"]\nENTRYPOINT [\"run\"]", json!({"Entrypoint": ["run"], "Cmd": ["a"]})),
        ("ENTRYPOINT exec top", json!({"Entrypoint": ["/bin/sh", "-c", "exec top"], "Cmd": null})),
        (
            "SHELL [\"/bin/bash\", \"-c\"]\nCMD x",
            json!({"Shell": ["/bin/bash", "-c"], "Cmd": ["/bin/bash", "-c", "x"]}),
        ),
        ("ENV A=1", json!({"Env": [path, "A=1"]})),
        ("ENV A 1 2  3", json!({"Env": [path, "A=1 2  3"]})),
        ("ENV A=1 B=2\nENV A=3", json!({"Env": [path, "A=3", "B=2"]})),
        ("ENV A=\"two words\" B=it\\'s C='$A'", json!({"Env": [path, "A=two words", "B=it's", "C=$A"]})),
        ("ENV A=1\nENV A=2 B=$A", json!({"Env": [path, "A=2", "B=1"]})),
        ("ENV PATH=/opt:$PATH", json!({"Env": ["PATH=/opt:/bin"]})),
        ("ENV A=a\\ b", json!({"Env": [path, "A=a b"]})),
        ("ENV A=", json!({"Env": [path, "A="]})),
        (
            "ENV A=${NO:-deflt} B=${PATH:+yes} C=${NO:+no} D=${NO-x}",
            json!({"Env": [path, "A=deflt", "B=yes", "C=", "D=x"]}),
        ),
        (
            "ENV A=${NO:-${PATH}} B=\\$PATH C=\"\\$PATH\" D=$ E=$1",
            json!({"Env": [path, "A=/bin", "B=$PATH", "C=$PATH", "D=$", "E="]}),
        ),
        (
            "ENV A=archive.tar.gz\nENV B=${A%.*} C=${A%%.*} D=${A#*.} E=${A##*.}",
            json!({"Env": [path, "A=archive.tar.gz", "B=archive.tar", "C=archive", "D=tar.gz", "E=gz"]}),
        ),
        (
            "ENV A=a-b-c\nENV B=${A/-/_} C=${A//-/_} D=${A/b?/x}",
            json!({"Env": [path, "A=a-b-c", "B=a_b-c", "C=a_b_c", "D=a-xc"]}),
        ),
        ("ENV A=b\nENV B=${A}c D=$A/e F=\"${A} x\"", json!({"Env": [path, "A=b", "B=bc", "D=b/e", "F=b x"]})),
        ("ENV A=1 \\\n  B=2 \\\n  # between\n\n  C=3", json!({"Env": [path, "A=1", "B=2", "C=3"]})),
    ]);
}

/// Words of docker's own lexer, and what they stand for; `None` where that is an error.
#[test]
fn words_stand_for_what_docker_says() {
    let value = |name: &str| match name {
        "PWD" => Some("/home".to_string()),
        "NULL" => Some(String::new()),
        "KOREAN" => Some("한국어".to_string()),
        "STARS" => Some("a***yy*".to_string()),
        "SIGNS" => Some("()[]{}^$.*?|\\x".to_string()),
        _ => None,
    };
    for (word, wanted) in [
        ("he'll'o", Some("hello")),
        ("he'llo", None),
        ("he\\'llo", Some("he'llo")),
        ("he\\\\'llo", None),
        ("abc\\tdef", Some("abctdef")),
        ("\"abc\\tdef\"", Some("abc\\tdef")),
        ("\"abc\\\\tdef\"", Some("abc\\tdef")),
        ("hello\\", Some("hello")),
        ("hello\\\\", Some("hello\\")),
        ("\"hello\\\"", None),
        ("'hello\\'", Some("hello\\")),
        ("$.", Some("$.")),
        ("he$1x", Some("hex")),
        ("he$pwd.", Some("he.")),
        ("he\\\\$PWD", Some("he\\/home")),
        ("\\${}aaa", Some("${}aaa")),
        ("he${}xx", None),
        ("he${.}", None),
        ("he${XXX:YYY}", None),
        ("he${XXX?}", None),
        ("he${NULL?}", Some("he")),
        ("he${NULL:?}", None),
        ("he${XXX:-\\${PWD}z}xx", Some("he${PWDz}xx")),
        ("안녕\\t하세요", Some("안녕t하세요")),
        ("안녕$KOREAN", Some("안녕한국어")),
        ("${{aaa:-bbb}", None),
        ("${aaa:-bbb ${foo}", None),
        ("${:-bbb}", None),
        ("$999aaa", Some("aaa")),
        ("${001:-bbb}aaa", Some("bbbaaa")),
        ("$@@@", Some("@@")),
        ("${#:-bbb}", Some("bbb")),
        ("${-:+bbb}", Some("")),
        ("$$", Some("")),
        ("${STARS%%\\**\\*}", Some("a")),
        ("${SIGNS#()\\[]{\\}^$.\\*\\?|\\\\}", Some("x")),
        ("${PWD//\\//\\/}", Some("\\/home")),
        ("${PWD/\\//${XXX:-\\+}}", Some("+home")),
    ] {
        let found = model::dockerfile::words::expand(word, '\\', &value);
        assert_eq!(found.ok().as_deref(), wanted, "{word}");
    }
}

#[test]
fn labels_ports_users_and_arguments() {
    let path = "PATH=/bin";
    check_configs(&[
        ("LABEL a=b \"c d\"=\"e f\" g=\"h\\\ni\"", json!({"Labels": {"a": "b", "c d": "e f", "g": "hi"}})),
        ("LABEL a b c", json!({"Labels": {"a": "b c"}})),
        ("LABEL v=1\nLABEL v=2 w=$PATH", json!({"Labels": {"v": "2", "w": "/bin"}})),
        ("MAINTAINER me <me@example.org>", json!({})),
        ("EXPOSE 80", json!({"ExposedPorts": {"80/tcp": {}}})),
        (
            "EXPOSE 80 53/UDP 8000-8002",
            json!({"ExposedPorts": {"80/tcp": {}, "53/udp": {}, "8000/tcp": {}, "8001/tcp": {}, "8002/tcp": {}}}),
        ),
        (
            "ENV P=\"1 2\"\nEXPOSE $P",
            json!({"Env": [path, "P=1 2"], "ExposedPorts": {"1/tcp": {}, "2/tcp": {}}}),
        ),
        ("VOLUME /data /more", json!({"Volumes": {"/data": {}, "/more": {}}})),
        ("VOLUME [\"/data\"]", json!({"Volumes": {"/data": {}}})),
        ("ENV D=/d\nVOLUME $D/x", json!({"Env": [path, "D=/d"], "Volumes": {"/d/x": {}}})),
        ("USER 7:8", json!({"User": "7:8"})),
        ("ENV U=web\nUSER $U", json!({"Env": [path, "U=web"], "User": "web"})),
        ("WORKDIR /srv", json!({"WorkingDir": "/srv"})),
        ("WORKDIR /srv\nWORKDIR app\nWORKDIR ../b/./c", json!({"WorkingDir": "/srv/b/c"})),
        ("WORKDIR app", json!({"WorkingDir": "/app"})),
        ("WORKDIR /a b", json!({"WorkingDir": "/a b"})),
        ("WORKDIR /../..", json!({"WorkingDir": "/"})),
        ("STOPSIGNAL SIGINT", json!({"StopSignal": "SIGINT"})),
        ("ONBUILD RUN echo $X\nONBUILD COPY . /src", json!({"OnBuild": ["RUN echo $X", "COPY . /src"]})),
        ("HEALTHCHECK NONE", json!({"Healthcheck": {"Test": ["NONE"]}})),
        ("HEALTHCHECK CMD true", json!({"Healthcheck": {"Test": ["CMD-SHELL", "true"]}})),
        (
            "HEALTHCHECK --interval=5s --timeout=1m30s --start-period=100ms --retries=4 CMD [\"a\", \"b\"]",
            json!({"Healthcheck": {"Test": ["CMD", "a", "b"], "Interval": 5_000_000_000_u64, "Timeout": 90_000_000_000_u64, "StartPeriod": 100_000_000, "Retries": 4}}),
        ),
        ("ARG A=1\nENV B=$A", json!({"Env": [path, "B=1"]})),
        ("ARG A=1\nENV A=2\nENV B=$A", json!({"Env": [path, "A=2", "B=2"]})),
        ("ARG A=1 B=$A\nENV C=$B", json!({"Env": [path, "C="]})),
        ("ARG A=1\nARG B=${A}2\nENV C=$B", json!({"Env": [path, "C=12"]})),
        ("ENV C=$UNKNOWN", json!({"Env": [path, "C="]})),
        ("ENV C=$GIVEN", json!({"Env": [path, "C="]})),
        ("ARG GIVEN\nENV C=$GIVEN", json!({"Env": [path, "C=by hand"]})),
        ("ARG GIVEN=default\nENV C=$GIVEN", json!({"Env": [path, "C=by hand"]})),
        ("ARG TARGETARCH\nENV C=$TARGETARCH", json!({"Env": [path, "C=amd64"]})),
        ("ENV C=$HTTP_PROXY", json!({"Env": [path, "C=http://proxy"]})),
        ("# escape=`\nENV A=1", json!({"Env": [path, "A=1"]})),
    ]);
}

/// What is done to files, in the last stage.
#[test]
fn works() {
    for (text, args, wanted) in [
        ("FROM a\nRUN echo hi", &[][..], &["RUN [\"/bin/sh\", \"-c\", \"echo hi\"]"][..]),
        ("FROM a\nRUN [\"echo\", \"hi\"]", &[], &["RUN [\"echo\", \"hi\"]"]),
        ("FROM a\nRUN a && \\\n    b", &[], &["RUN [\"/bin/sh\", \"-c\", \"a &&     b\"]"]),
        (
            "FROM a\nRUN echo '# no comment' \\\n# one\n  \\\n end",
            &[],
            &["RUN [\"/bin/sh\", \"-c\", \"echo '# no comment'    end\"]"],
        ),
        (
            "FROM a\nRUN echo a\\\\\nRUN b",
            &[],
            &["RUN [\"/bin/sh\", \"-c\", \"echo a\\\\\\\\\"]", "RUN [\"/bin/sh\", \"-c\", \"b\"]"],
        ),
        ("# escape=`\nFROM a\nRUN a `\n b \\", &[], &["RUN [\"/bin/sh\", \"-c\", \"a  b \\\\\"]"]),
        ("FROM a\nARG V=1\nRUN use $V", &[], &["RUN V=1 [\"/bin/sh\", \"-c\", \"use $V\"]"]),
        ("FROM a\nARG V=1\nRUN use $V", &["V=2"], &["RUN V=2 [\"/bin/sh\", \"-c\", \"use $V\"]"]),
        ("FROM a\nARG V\nRUN use", &[], &["RUN [\"/bin/sh\", \"-c\", \"use\"]"]),
        ("FROM a\nARG V=1\nENV V=3\nRUN use", &[], &["RUN [\"/bin/sh\", \"-c\", \"use\"]"]),
        ("FROM a\nRUN --network=none ping", &[], &["RUN [\"/bin/sh\", \"-c\", \"ping\"] offline"]),
        ("FROM a\nRUN <<EOF\none\ntwo\nEOF\nUSER x", &[], &["RUN [\"/bin/sh\", \"-c\", \"one\\ntwo\\n\"]"]),
        (
            "FROM a\nRUN cat <<EOF >f\n$x\nEOF",
            &[],
            &["RUN [\"/bin/sh\", \"-c\", \"cat <<EOF >f\\n$x\\nEOF\\n\"]"],
        ),
        ("FROM a\nRUN <<-EOF\n\tone\n\tEOF", &[], &["RUN [\"/bin/sh\", \"-c\", \"one\\n\"]"]),
        ("FROM a\nRUN echo $((1<<2))", &[], &["RUN [\"/bin/sh\", \"-c\", \"echo $((1<<2))\"]"]),
        ("FROM a\nCOPY a b /c/", &[], &["COPY a b -> /c"]),
        ("FROM a\nCOPY [\"a b\", \"/c d\"]", &[], &["COPY a b -> /c d"]),
        ("FROM a\nWORKDIR /w\nCOPY . .", &[], &["DIR /w", "COPY . -> /w"]),
        ("FROM a\nENV D=/d\nCOPY $D/x ${D}/y", &[], &["COPY /d/x -> /d/y"]),
        ("FROM a\nCOPY --chown=7:8 --chmod=0640 a /b", &[], &["COPY chown=7:8 chmod=0640 a -> /b"]),
        ("FROM a\nARG U=web\nCOPY --link --chown=$U a /b", &[], &["COPY chown=web a -> /b"]),
        ("FROM a\nADD https://example.org/x.tar /x/", &[], &["ADD web:https://example.org/x.tar -> /x"]),
        ("FROM a\nADD a.tar.gz /x/", &[], &["ADD a.tar.gz -> /x"]),
        ("FROM a\nCOPY https://example.org/x /x/", &[], &["COPY https://example.org/x -> /x"]),
        (
            "FROM a\nENV N=me\nCOPY <<one <<\"two\" /t/\nhi $N\none\nhi $N\ntwo",
            &[],
            &["COPY one:\"hi me\\n\" two:\"hi $N\\n\" -> /t"],
        ),
        ("FROM a AS one\nFROM b\nCOPY --from=one /x /y", &[], &["COPY from=one /x -> /y"]),
        (
            "FROM a\nFROM b\nCOPY --from=0 /x /y\nCOPY --from=other:1 /x /y",
            &[],
            &["COPY from=0 /x -> /y", "COPY from=other:1 /x -> /y"],
        ),
        (
            "FROM triggers\nRUN last",
            &[],
            &["RUN [\"/bin/sh\", \"-c\", \"first\"]", "COPY a -> /b", "RUN [\"/bin/sh\", \"-c\", \"last\"]"],
        ),
        (
            "FROM a AS one\nRUN in one\nFROM b AS two\nRUN in two",
            &["TARGET=one"],
            &["RUN [\"/bin/sh\", \"-c\", \"in one\"]"],
        ),
        ("FROM a\nMAINTAINER me", &[], &["AUTHOR me"]),
        ("\u{feff}FROM a\r\nRUN x\r\n", &[], &["RUN [\"/bin/sh\", \"-c\", \"x\"]"]),
        ("FROM a\nSHELL [\"ash\", \"-ec\"]\nRUN x", &[], &["RUN [\"ash\", \"-ec\", \"x\"]"]),
    ] {
        let (done, _) = build(text, args).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(&done[1..], wanted, "{text}");
    }
}

/// What stages are built on.
#[test]
fn bases() {
    for (text, args, wanted) in [
        ("FROM busybox:1", &[][..], "Image(\"busybox:1\")"),
        ("FROM scratch\nCOPY a /", &[], "Scratch"),
        ("ARG V=1\nFROM a:$V", &[], "Image(\"a:1\")"),
        ("ARG V=1\nFROM a:${V}-x", &["V=2"], "Image(\"a:2-x\")"),
        ("ARG V\nFROM a:${V:-3}", &[], "Image(\"a:3\")"),
        ("ARG A=x\nARG B=$A/y\nFROM $B", &[], "Image(\"x/y\")"),
        ("FROM --platform=$BUILDPLATFORM a", &[], "Image(\"a\")"),
        ("FROM a AS one\nFROM one", &[], "Stage(0)"),
        ("FROM a AS One\nFROM ONE", &[], "Stage(0)"),
        ("FROM a AS one\nFROM one AS two\nFROM b", &["TARGET=two"], "Stage(0)"),
        ("# syntax=docker/dockerfile:1\n# check=skip=all\nFROM a", &[], "Image(\"a\")"),
        ("# a comment\n# escape=`\nFROM a\nRUN x \\\n y", &[], "Image(\"a\")"),
        ("ARG V=global\nFROM a\nARG V\nRUN x", &[], "Image(\"a\")"),
    ] {
        let (done, _) = build(text, args).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(done[0], format!("FROM {wanted}"), "{text}");
    }
    let (done, _) = build("ARG V=global\nFROM a\nARG V\nRUN x", &[]).unwrap();
    assert_eq!(done[1], "RUN V=global [\"/bin/sh\", \"-c\", \"x\"]");
    // Stages that nobody needs are not built.
    let file = Dockerfile::read(b"FROM a AS one\nFROM b AS two\nFROM c\nCOPY --from=two /x /y").unwrap();
    let globals = Globals::of(&file, &BTreeMap::new(), "amd64").unwrap();
    let plan = file.plan(None, &globals, &|_| false).unwrap();
    assert_eq!(plan.iter().map(|planned| planned.stage).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn what_is_given_stands_for_images_and_stages() {
    let text = b"FROM a AS one\nFROM b AS two\nCOPY --from=one /x /y\nRUN x\nFROM two\nFROM base\nCOPY --from=two /x /y\nCOPY --from=2 / /";
    let file = Dockerfile::read(text).unwrap();
    let globals = Globals::of(&file, &BTreeMap::new(), "amd64").unwrap();
    let planned = |given: &[&str]| {
        let plan = file.plan(None, &globals, &|name| given.contains(&name)).unwrap();
        let shown = plan.iter().map(|it| format!("{} {:?} {}", it.stage, it.base, it.is_given));
        (shown.collect::<Vec<_>>(), file.count(&plan))
    };
    let wanted =
        ["0 Image(\"a\") false", "1 Image(\"b\") false", "2 Stage(1) false", "3 Image(\"base\") false"];
    assert_eq!(planned(&[]), (wanted.map(String::from).to_vec(), 8));
    // What takes the place of a stage has none of its steps, and needs none of its sources.
    let (plan, steps) = planned(&["two", "base"]);
    let wanted = ["1 Given(\"two\") true", "2 Stage(1) false", "3 Given(\"base\") false"];
    assert_eq!((plan, steps), (wanted.map(String::from).to_vec(), 5));
}

#[test]
fn errors_name_the_line() {
    for (text, line, words) in [
        ("", 0, "file with no instructions"),
        ("# only a comment\n\n", 0, "file with no instructions"),
        ("ARG A=1", 0, "no build stage"),
        ("RUN x\nFROM a", 1, "no build stage in current context"),
        ("FROM a\n\nFRM b", 3, "unknown instruction: FRM"),
        ("FROM", 1, "FROM requires at least one argument"),
        ("FROM a b", 1, "either one or three arguments"),
        ("FROM a AS 1x", 1, "invalid name for build stage"),
        ("FROM a AS x\nFROM b AS x", 2, "duplicate name x"),
        ("FROM a AS scratch", 1, "no name for a stage"),
        ("FROM $MISSING", 1, "should not be blank"),
        ("FROM a\nRUN", 2, "RUN requires at least one argument"),
        ("FROM a\nRUN --mount=type=cache y", 2, "needs target"),
        ("FROM a\nRUN --security=insecure y", 2, "is not served"),
        ("FROM a\nRUN --network=host y", 2, "not possible"),
        ("FROM a\nRUN --bogus y", 2, "unknown flag: bogus"),
        ("FROM a\nRUN <<EOF\nx", 2, "unterminated heredoc \"EOF\""),
        ("FROM a\nRUN <<EOF\n#!/usr/bin/python\nEOF", 2, "begins with #!"),
        ("FROM a\nCOPY a", 2, "at least two arguments"),
        ("FROM a\nCOPY --chmod=rwx a b", 2, "octal"),
        ("FROM a\nCOPY --chmod a b", 2, "missing a value on flag: chmod"),
        ("FROM a\nCOPY --from=x --from=y a b", 2, "duplicate flag specified: from"),
        ("FROM a\nCOPY --from=0 a b", 2, "no stage before this one"),
        ("FROM a\nCOPY --from=$X a b", 2, "not replaced in --from"),
        ("FROM a\nCOPY --exclude=x a b", 2, "is not served"),
        ("FROM a\nCOPY $NO /b", 2, "is empty"),
        ("FROM a\nCOPY a <<EOF\nx\nEOF", 2, "heredoc as a destination"),
        ("FROM a\nADD --from=x a b", 2, "unknown flag: from"),
        ("FROM a\nADD https://github.com/a/b.git /b", 2, "nothing is fetched by Git"),
        ("FROM a\nADD --checksum=sha256:00 https://example.org/a /b", 2, "64 digits"),
    ] {
        check_error(text, line, words);
    }
}

/// That a text cannot be built, and what is told of it.
fn check_error(text: &str, line: u32, words: &str) {
    let args: &[&str] = if text == "FROM a AS x" { &["TARGET=nosuch"] } else { &[] };
    let error = build(text, args).err().unwrap_or_else(|| panic!("no error: {text}"));
    assert!(error.line == line && error.message.contains(words), "{text}: {error:?}");
}

#[test]
fn errors_of_the_config_name_the_line() {
    for (text, line, words) in [
        ("FROM a\nRUN [\"a\", 1]", 2, "comprised of strings only"),
        ("FROM a\nHEALTHCHECK CMD [1]", 2, "comprised of strings only"),
        ("FROM a\nENV B=\nENV A=${B:?}", 3, "B: is not allowed to be empty"),
        ("FROM a\nENV A", 2, "ENV must have two arguments"),
        ("FROM a\nENV A=1 B", 2, "can't find = in \"B\""),
        ("FROM a\nENV =1", 2, "can not be blank"),
        ("FROM a\nENV A=\"x", 2, "double-quote"),
        ("FROM a\nENV A='x", 2, "single-quote"),
        ("FROM a\nENV A=${B", 2, "missing '}'"),
        ("FROM a\nENV A=${B:=x}", 2, "unsupported modifier (=)"),
        ("FROM a\nENV A=${}", 2, "bad substitution"),
        ("FROM a\nENV A=\"${B:?is needed}\"", 2, "B: is needed"),
        ("FROM a\nLABEL a", 2, "LABEL must have two arguments"),
        ("FROM a\nEXPOSE x", 2, "Invalid containerPort: x"),
        ("FROM a\nEXPOSE 0", 2, "Invalid containerPort"),
        ("FROM a\nEXPOSE 80/icmp", 2, "Invalid containerPort"),
        ("FROM a\nEXPOSE 9-1", 2, "Invalid containerPort"),
        ("FROM a\nEXPOSE 1-9999", 2, "more than 1024 entries"),
        ("FROM a\nVOLUME [\"\"]", 2, "empty string"),
        ("FROM a\nSHELL /bin/sh -c", 2, "JSON form"),
        ("FROM a\nONBUILD ONBUILD RUN x", 2, "Chaining ONBUILD"),
        ("FROM a\nONBUILD FROM x", 2, "isn't allowed as an ONBUILD trigger"),
        ("FROM a\nONBUILD NOSUCH x", 2, "unknown instruction: NOSUCH"),
        ("FROM a\nHEALTHCHECK true", 2, "unknown type \"TRUE\""),
        ("FROM a\nHEALTHCHECK NONE x", 2, "takes no arguments"),
        ("FROM a\nHEALTHCHECK CMD", 2, "missing command"),
        ("FROM a\nHEALTHCHECK --interval=soon CMD x", 2, "invalid duration"),
        ("FROM a\nHEALTHCHECK --interval=1us CMD x", 2, "less than 1ms"),
        ("FROM a\nARG =x", 2, "ARG names can not be blank"),
        ("FROM a\nCMD", 2, "CMD requires at least one argument"),
        ("# escape=x\nFROM a", 1, "invalid ESCAPE"),
        ("# escape=\\\n# escape=`\nFROM a", 2, "only one escape"),
        ("# syntax=example.org/my/frontend\nFROM a", 1, "is not spoken here"),
        ("FROM a\nRUN a \\\n\n# c\n b\nBAD", 6, "unknown instruction: BAD"),
        ("FROM a AS x", 0, "failed to reach build target nosuch"),
    ] {
        check_error(text, line, words);
    }
}

#[test]
fn limits_hold() {
    let many = format!("FROM a\n{}", "RUN x\n".repeat(model::dockerfile::INSTRUCTIONS_MAX));
    assert!(build(&many, &[]).unwrap_err().message.contains("more than 1000 instructions"));
    let stages = "FROM a\n".repeat(model::dockerfile::STAGES_MAX + 1);
    assert!(build(&stages, &[]).unwrap_err().message.contains("more than 100 stages"));
    let long = format!("FROM a\nRUN {}", "x".repeat(model::dockerfile::INSTRUCTION_BYTES_MAX));
    assert!(build(&long, &[]).unwrap_err().message.contains("more than"));
    let large = " ".repeat(model::dockerfile::DOCKERFILE_BYTES_MAX + 1);
    assert!(build(&large, &[]).unwrap_err().message.contains("more than"));
    let deep = format!("FROM a\nENV A={}{}", "${A:-".repeat(20), "}".repeat(20));
    assert!(build(&deep, &[]).unwrap_err().message.contains("deep"));
    // A value that doubles with each line.
    let doubling = format!("FROM a\nENV A=0123456789\n{}", "ENV A=$A$A\n".repeat(30));
    assert!(build(&doubling, &[]).unwrap_err().message.contains("grows beyond"));
    // A value that many names stand for, in one line and in many.
    let large = format!("FROM a\nENV A={}\n", "x".repeat(200_000));
    let many = format!("{large}LABEL {}", (0..100).map(|n| format!("l{n}=$A ")).collect::<String>());
    assert!(build(&many, &[]).unwrap_err().message.contains("all values grow beyond"));
    let many = format!("{large}{}", (0..100).map(|n| format!("LABEL l{n}=$A\n")).collect::<String>());
    assert!(build(&many, &[]).unwrap_err().message.contains("the config of the image has more than"));
    assert!(Dockerfile::read(b"FROM a\nRUN \xff").unwrap_err().line == 2);
}

#[test]
fn what_is_ignored() {
    for (patterns, path, is_out) in [
        ("", "a", false),
        ("a", "a", true),
        ("a", "a/b/c", true),
        ("/a", "a", true),
        ("a", "b/a", false),
        ("*/a", "b/a", true),
        ("*/a", "c/b/a", false),
        ("**/a", "a", true),
        ("**/a", "c/b/a", true),
        ("a/**", "a", false),
        ("a/**", "a/b", true),
        ("a/**/b", "a/b", true),
        ("a/**/b", "a/x/y/b", true),
        ("*.log", "x.log", true),
        ("*.log", "d/x.log", false),
        ("**/*.log", "d/e/x.log", true),
        ("x?", "xy", true),
        ("x?", "x", false),
        ("[a-c]x", "bx", true),
        ("[^a-c]x", "bx", false),
        ("# a\na", "a", true),
        ("a\n!a/keep", "a/keep", false),
        ("a\n!a/keep", "a/other", true),
        ("!a/keep\na", "a/keep", true),
        ("*\n!src\n!*.md\nREADME.md", "src/main.c", false),
        ("*\n!src\n!*.md\nREADME.md", "README.md", true),
        ("a/../b", "b", true),
        (".", "a", false),
        ("  a  ", "a", true),
        ("\\#a", "#a", true),
    ] {
        let ignore = Ignore::read(patterns.as_bytes()).unwrap();
        assert_eq!(ignore.leaves_out(path), is_out, "{patterns:?} {path}");
    }
    assert_eq!(Ignore::read(b"a\n!").unwrap_err().line, 2);
    assert_eq!(Ignore::read(b"a\n[").unwrap_err().line, 2);
    assert!(
        fits_path("src/*.c", "src/main.c")
            && !fits_path("src/*.c", "src/a/main.c")
            && fits_path("[ab]?", "bx")
    );
}

#[test]
fn arguments_that_nobody_asks_for_are_told() {
    let file = Dockerfile::read(b"ARG A\nFROM a\nARG B=1").unwrap();
    let given =
        ["A", "B", "C", "HTTP_PROXY", "SOURCE_DATE_EPOCH"].map(|name| (name.to_string(), String::new()));
    assert_eq!(file.unused(&given.into()), ["C"]);
}
