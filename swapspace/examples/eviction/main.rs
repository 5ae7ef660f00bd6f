//! How often each eviction policy finds a page in memory, on recorded traces of page accesses,
//! beside the bound: Belady's OPT, which knows the future.
//!
//! ```sh
//! cargo run --release -p swapspace --example eviction            # replays, prints the table
//! cargo run --release -p swapspace --example eviction -- record  # runs the programs again
//! ```

mod record;
mod replay;
mod trace;

use std::path::{Path, PathBuf};

use swapspace::{Nru, S3Fifo, SecondChance};

use self::replay::{optimum, replay};
use self::trace::Trace;

/// Memory, in per cent of the pages that a trace touches.
const MEMORY: [usize; 4] = [10, 25, 50, 75];

fn main() -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/eviction/traces");
    let file = |name: &str| -> PathBuf { folder.join(name).with_extension("pages") };
    if std::env::args().nth(1).as_deref() == Some("record") {
        for (name, record) in record::PROGRAMS {
            std::fs::write(file(name), record().encode())?;
        }
    }
    println!("| trace | pages | accesses | memory | second chance | NRU | S3-FIFO | OPT |");
    println!("|---|---:|---:|---:|---:|---:|---:|---:|");
    for (name, _) in record::PROGRAMS {
        let trace = Trace::decode(&std::fs::read(file(name))?);
        for memory in MEMORY {
            let frames = (trace.pages() * memory / 100).max(1);
            let hits = [
                replay(SecondChance::new(), &trace, frames),
                replay(Nru::new(), &trace, frames),
                replay(S3Fifo::new(), &trace, frames),
                optimum(&trace, frames),
            ];
            let ratio = |hits: usize| 100.0 * hits as f64 / trace.accesses().len() as f64;
            print!("| {name} | {} | ", trace.pages());
            print!("{} | {memory} % |", trace.accesses().len());
            for hits in hits {
                print!(" {:.1} % |", ratio(hits));
            }
            println!();
        }
    }
    Ok(())
}
