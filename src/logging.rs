//! The program's own messages: what `tracing` gets goes to stderr or a file, as text or JSON, and
//! all of that can change while the process runs. Beside it lines for people: [`say`] on stderr,
//! [`answer`] on stdout. Access logs are none of its business.
//!
//! Nothing here panics, ends the process or waits: a reader that has gone away (a closed pipe) or
//! has stalled, a full disk or a file that can't be opened again costs messages, never traffic.

use std::borrow::Cow;
use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::{Result, anyhow};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::{Layer, Layered, SubscriberExt};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use weir_core::model::{Log, LogFormat, LogLevel, LogTarget};
use weir_core::net::sys;

/// A log file is for its owner and group.
const FILE_MODE: u32 = 0o640;

type Form = Box<dyn Layer<Registry> + Send + Sync>;
/// The registry with the form on top, which the level filters.
type Formed = Layered<reload::Layer<Form, Registry>, Registry>;

/// What can change about the log.
struct Switches {
    form: Handle<Form, Registry>,
    level: Handle<LevelFilter, Formed>,
}

static SWITCHES: OnceLock<Switches> = OnceLock::new();
static SINK: Mutex<Sink> = Mutex::new(Sink { file: None, json: false, lost: 0, torn: false });

/// Where messages go.
struct Sink {
    /// `None` = stderr.
    file: Option<(PathBuf, File)>,
    /// As JSON, not as text.
    json: bool,
    /// Lines that could not be written since one was.
    lost: u64,
    /// Of the last one only the beginning could.
    torn: bool,
}

/// Begins to log to stderr as text, from `level` upwards. Calling it twice does nothing.
pub fn init(level: LogLevel) {
    let (form, form_switch) = reload::Layer::new(form(LogFormat::Text, true));
    let (level, level_switch) = reload::Layer::new(filter(level));
    if tracing_subscriber::registry().with(form).with(level).try_init().is_ok() {
        let _set_once = SWITCHES.set(Switches { form: form_switch, level: level_switch });
    }
}

/// Settings that can be gone over to: their file is open.
#[derive(Debug)]
pub struct Prepared {
    log: Log,
    file: Option<File>,
}

/// Opens what these settings need; nothing changes yet.
///
/// # Errors
/// A log file that can't be opened.
pub fn prepare(log: &Log) -> Result<Prepared> {
    let file = match &log.target {
        LogTarget::Standard => None,
        LogTarget::File(path) => Some(open(path)?),
    };
    Ok(Prepared { log: log.clone(), file })
}

impl Prepared {
    /// Goes over to them.
    pub fn apply(self) {
        let Prepared { log, file } = self;
        let to_stderr = file.is_none();
        let target = match log.target {
            LogTarget::Standard => None,
            LogTarget::File(path) => file.map(|file| (path, file)),
        };
        {
            let mut sink = sink();
            (sink.file, sink.json) = (target, log.format == LogFormat::Json);
        }
        if let Some(switches) = SWITCHES.get() {
            // They fail only when the subscriber is gone, as the process ends.
            let _ending = switches.form.reload(form(log.format, to_stderr));
            let _ending = switches.level.reload(filter(log.level));
        }
    }
}

/// Opens the log file again, as after a rotation; on stderr it does nothing.
///
/// # Errors
/// It can't be opened; the old one goes on taking messages.
pub fn reopen() -> Result<()> {
    let path = sink().file.as_ref().map(|(path, _)| path.clone());
    if let Some(path) = path {
        let file = open(&path)?;
        sink().file = Some((path, file));
    }
    Ok(())
}

/// Says for everybody what a start has come to: on stderr, where somebody may wait for it, and in
/// the log, where that is elsewhere. A log of JSON on stderr gets it as a message only.
pub fn announce(line: &str) {
    let (on_stderr, logged) = audience();
    if on_stderr {
        say(format_args!("weir: {line}"));
    }
    if logged {
        tracing::info!("{line}");
    }
}

/// The same of why the program ends.
pub fn complain(text: &str) {
    let (on_stderr, logged) = audience();
    if on_stderr {
        say(text);
    }
    if logged {
        tracing::error!("{}", text.trim_start_matches("weir: "));
    }
}

/// Who gets what is for everybody: stderr as it is, and the log, if that is another thing.
fn audience() -> (bool, bool) {
    let sink = sink();
    (sink.file.is_some() || !sink.json, sink.file.is_some() || sink.json)
}

/// Writes one line to stderr.
pub fn say(line: impl Display) {
    let _nobody_reads = writeln!(io::stderr(), "{line}");
}

/// Writes one line to stdout.
pub fn answer(line: impl Display) {
    let _nobody_reads = writeln!(io::stdout(), "{line}");
}

fn open(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(FILE_MODE).open(path).map_err(|e| {
        anyhow!(
            "[log] path: cannot open {}: {e}; its folder must exist and be writable for this \
             process' user (in a systemd unit: LogsDirectory=weir)",
            path.display()
        )
    })
}

fn form(format: LogFormat, to_stderr: bool) -> Form {
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(|| Line)
        .with_target(false)
        .log_internal_errors(false);
    match format {
        LogFormat::Text => {
            let ansi = to_stderr && std::io::IsTerminal::is_terminal(&io::stderr());
            layer.with_ansi(ansi).boxed()
        }
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    }
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

fn sink() -> std::sync::MutexGuard<'static, Sink> {
    SINK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes the bytes of one message.
struct Line;

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        sink().write(&in_one_line(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A message with line breaks inside becomes one line: `; ` stands for each, and for what the next
/// line is indented by. JSON has none.
fn in_one_line(message: &[u8]) -> Cow<'_, [u8]> {
    let body = message.strip_suffix(b"\n").unwrap_or(message);
    if !body.contains(&b'\n') {
        return Cow::Borrowed(message);
    }
    let mut line = Vec::with_capacity(message.len() + 16);
    for (index, part) in body.split(|byte| *byte == b'\n').enumerate() {
        if index > 0 {
            line.extend_from_slice(b"; ");
        }
        line.extend_from_slice(if index > 0 { part.trim_ascii_start() } else { part });
    }
    line.push(b'\n');
    Cow::Owned(line)
}

impl Sink {
    /// Writes a message. One that is not taken (a full disk, a reader that has stalled) is counted;
    /// the first of a row goes to stderr instead, so that somebody hears of it.
    fn write(&mut self, line: &[u8]) {
        let end = if self.torn { "\n" } else { "" };
        let note = match self.lost {
            0 => String::new(),
            n => format!("weir: {n} messages before this one were lost\n"),
        };
        let written = match &mut self.file {
            None => write_now(&mut io::stderr(), &[end.as_bytes(), note.as_bytes(), line].concat()),
            // The note comes behind: on a full disk it must not take the message's room.
            Some((_, file)) => write_now(file, &[end.as_bytes(), line].concat()).inspect(|()| {
                let _lost_as_well = write_now(file, note.as_bytes());
            }),
        };
        match written {
            Ok(()) => (self.lost, self.torn) = (0, false),
            Err(Unwritten { torn, error }) => {
                self.lost += 1;
                self.torn |= torn;
                if let Some((path, _)) = self.file.as_ref().filter(|_| self.lost == 1) {
                    let why = format!("weir: cannot write the log {}: {error}\n", path.display());
                    let _nobody_reads =
                        write_now(&mut io::stderr(), &[why.as_bytes(), line].concat());
                }
            }
        }
    }
}

/// Bytes that were not taken, or not all.
struct Unwritten {
    torn: bool,
    error: io::Error,
}

/// Writes what goes without waiting for a reader.
fn write_now(to: &mut (impl Write + AsFd), bytes: &[u8]) -> std::result::Result<(), Unwritten> {
    let mut torn = false;
    for piece in bytes.chunks(sys::PIPE_BYTES) {
        let written = match sys::takes_bytes(to.as_fd()) {
            // Of what fails some may be there.
            true => to.write_all(piece).inspect_err(|_| torn = true),
            false => Err(io::Error::new(io::ErrorKind::WouldBlock, "its reader has stalled")),
        };
        written.map_err(|error| Unwritten { torn, error })?;
        torn = true;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The log is the process': one test at a time has it.
    static TURN: Mutex<()> = Mutex::new(());

    fn apply(log: &Log) -> Result<()> {
        prepare(log).map(Prepared::apply)
    }

    fn to_file(path: &Path, format: LogFormat, level: LogLevel) -> Log {
        Log { target: LogTarget::File(path.to_owned()), format, level }
    }

    fn read(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn the_log_follows_its_settings() {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        init(LogLevel::Info);
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one"), folder.path().join("two"));
        apply(&to_file(&one, LogFormat::Text, LogLevel::Warn)).unwrap();
        tracing::info!("quiet");
        tracing::warn!("loud");
        assert!(read(&one).contains(" WARN loud") && !read(&one).contains("quiet"));
        apply(&to_file(&two, LogFormat::Json, LogLevel::Debug)).unwrap();
        tracing::debug!(number = 7, "a \u{1b}[2J \"quoted\"\nline");
        let text = read(&two);
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["level"], "DEBUG");
        assert_eq!(line["message"], "a \u{1b}[2J \"quoted\"\nline");
        assert_eq!(line["number"], 7);
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'), "{line}");
        // A rotation: the old file keeps its lines, the new one gets the next.
        let old = folder.path().join("old");
        std::fs::rename(&two, &old).unwrap();
        tracing::info!("before");
        reopen().unwrap();
        tracing::info!("after");
        assert!(read(&old).contains("before") && !read(&old).contains("after"));
        assert!(read(&two).contains("after"));
        apply(&Log::default()).unwrap();
    }

    #[test]
    fn a_message_is_one_line() {
        let folded = |text: &str| String::from_utf8(in_one_line(text.as_bytes()).into()).unwrap();
        assert_eq!(folded("one\n  help: two\nthree\n"), "one; help: two; three\n");
        assert_eq!((folded("one\n"), folded("one")), ("one\n".into(), "one".into()));
    }

    #[test]
    fn a_file_that_cannot_be_had_changes_nothing() {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        init(LogLevel::Info);
        let folder = tempfile::tempdir().unwrap();
        let good = folder.path().join("good");
        apply(&to_file(&good, LogFormat::Text, LogLevel::Info)).unwrap();
        let bad = to_file(Path::new("/nonexistent/weir.log"), LogFormat::Json, LogLevel::Trace);
        let text = format!("{:#}", apply(&bad).unwrap_err());
        assert!(text.contains("/nonexistent/weir.log") && text.contains("LogsDirectory"), "{text}");
        tracing::info!("still here");
        assert!(read(&good).contains("still here"));
        // A full disk costs messages, and no more.
        apply(&to_file(Path::new("/dev/full"), LogFormat::Text, LogLevel::Info)).unwrap();
        tracing::info!("lost");
        tracing::info!("lost too");
        assert_eq!(sink().lost, 2);
        apply(&Log::default()).unwrap();
        sink().lost = 0;
    }

    /// A reader that has stalled keeps nobody waiting; once it reads, lines come again.
    #[test]
    fn a_stalled_reader_costs_messages_only() {
        let (mut reader, mut writer) = io::pipe().unwrap();
        let line = [b'x'; 5_000];
        let mut taken = 0;
        while write_now(&mut writer, &line).is_ok() {
            taken += 1;
            assert!(taken < 10_000, "the pipe has no end");
        }
        assert!(taken > 1);
        let refused = write_now(&mut writer, b"more").unwrap_err();
        assert!(refused.error.to_string().contains("stalled") && !refused.torn);
        let mut read = vec![0; taken * line.len()];
        io::Read::read_exact(&mut reader, &mut read).unwrap();
        assert!(write_now(&mut writer, b"more").is_ok());
    }
}
