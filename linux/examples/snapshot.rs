//! A file as memory, paged by this program: read it, change it, write the changes back, keep the memory small, and
//! take the pager away while threads are at it.
//!
//! `cargo run --release -p upager-linux --example snapshot [FILE]`

use std::error::Error;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use upager::{
    ByteOffset, ByteRange, Command, DirtyRange, Evict, OwnedFrame, Packet, PageCount, Pager, Platform, Port, Status,
    Vmo, VmoOptions, Writeback, block_on,
};
use upager_linux::{LinuxPlatform, Mapper, Protection};

const PAGE: usize = 4096;
/// Pages that stay in memory.
const KEEP: u64 = 256;

struct Service {
    platform: Arc<LinuxPlatform>,
    pager: Pager<LinuxPlatform>,
    port: Port<LinuxPlatform>,
    file: File,
}

impl Service {
    /// Reads what is asked for, until the VMO is detached or gone.
    fn run(&self, vmo: &Vmo<LinuxPlatform>) -> upager::Result<()> {
        let mut packets = [Packet::default(); 16];
        loop {
            let taken = self.port.wait_until(None, &mut packets)?;
            for packet in &packets[..taken] {
                match packet.command() {
                    Some(Command::Complete) => return Ok(()),
                    Some(Command::Read) => self.supply(vmo, packet.range())?,
                    _ => {}
                }
            }
            let frames = self.platform.counts().frames.0;
            if frames > KEEP {
                vmo.evict(PageCount(frames - KEEP), Evict::Unused);
            }
            self.platform.pin().flush(); // frames are freed when nobody looks at them any more
        }
    }

    fn supply(&self, vmo: &Vmo<LinuxPlatform>, range: ByteRange) -> upager::Result<()> {
        let mut frames = Vec::new();
        for offset in (range.offset..range.offset + range.length).step_by(PAGE) {
            let mut bytes = [0; PAGE];
            let mut filled = 0;
            while filled < PAGE {
                match self.file.read_at(&mut bytes[filled..], offset + filled as u64) {
                    Ok(0) => break, // the rest of the last page is zeros
                    Ok(read) => filled += read,
                    Err(_) => return self.pager.fail_range(vmo, range, Status::Io),
                }
            }
            let frame = OwnedFrame::new(&*self.platform)?;
            frame.write(0, &bytes)?;
            frames.push(frame);
        }
        match self.pager.supply_frames(vmo, range, frames) {
            Err(Status::BadState) => Ok(()), // detached meanwhile
            supplied => supplied,
        }
    }

    /// Says what has changed; a real service would write it to its file between BEGIN and END.
    fn write_back(&self, vmo: &Vmo<LinuxPlatform>) -> upager::Result<u64> {
        let mut ranges = [DirtyRange::default(); 64];
        let found = self.pager.query_dirty_ranges(vmo, ByteRange::new(0, vmo.size()), &mut ranges)?;
        let mut written = 0;
        for range in &ranges[..found.actual] {
            self.pager.writeback_begin(vmo, range.range(), Writeback::All)?;
            let mut bytes = vec![0; usize::try_from(range.length).map_err(|_| Status::NoMemory)?];
            block_on(vmo.read(ByteOffset(range.offset), &mut bytes))?;
            self.pager.writeback_end(vmo, range.range())?;
            written += range.length;
        }
        Ok(written)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).map_or_else(std::env::current_exe, |path| Ok(path.into()))?;
    let file = File::open(&path)?;
    let size = file.metadata()?.len();

    let platform = Arc::new(LinuxPlatform::new());
    let pager = Pager::new(platform.clone());
    let port = Port::new(platform.clone());
    let vmo = Arc::new(pager.create_vmo(&port, 1, VmoOptions::NONE, size)?);
    let service = Arc::new(Service { platform, pager, port, file });
    let answering = std::thread::spawn({
        let (service, vmo) = (service.clone(), vmo.clone());
        move || service.run(&vmo)
    });

    let mapper = Mapper::new()?;
    let mapping = Arc::new(mapper.map(&vmo, ByteRange::new(0, vmo.size()), Protection::ReadWrite)?);

    // Plain loads, a byte a page.
    let begun = Instant::now();
    let at = mapping.as_ptr();
    // SAFETY: every page is within the mapping.
    let sum: u64 = (0..mapping.len()).step_by(PAGE).map(|n| u64::from(unsafe { at.add(n).read_volatile() })).sum();
    println!("{}: {} pages touched in {:?}, sum {sum}", path.display(), mapping.len() / PAGE, begun.elapsed());
    println!("{:?}, of {KEEP} to keep; {:?}", service.platform.counts(), mapper.counts());

    // A plain store.
    // SAFETY: as above; nobody else looks at the byte.
    unsafe { at.add(PAGE + 1).write_volatile(0x5a) };
    println!("dirty: {:?}, written back: {} bytes", vmo.counts().dirty, service.write_back(&vmo)?);

    // Threads at work, and the pager goes away under them.
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..4)
        .map(|reader: usize| {
            let (mapping, stop) = (mapping.clone(), stop.clone());
            std::thread::spawn(move || {
                let (mut page, mut served, mut refused) = (reader * 7919, 0_u64, 0_u64);
                while !stop.load(Ordering::Relaxed) {
                    page = (page + 613) % (mapping.len() / PAGE);
                    // SAFETY: one load within the mapping; nothing to drop.
                    match unsafe { mapping.guard(|at| at.add(page * PAGE).read_volatile()) } {
                        Ok(_) => served += 1,
                        Err(_) => refused += 1,
                    }
                }
                (served, refused)
            })
        })
        .collect();
    std::thread::sleep(Duration::from_millis(100));
    println!("{:?}", service.pager.detach_vmo(&vmo)?);
    std::thread::sleep(Duration::from_millis(100));
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        let (served, refused) = reader.join().map_err(|_| "a reader panicked")?;
        println!("a reader: {served} loads served, {refused} refused after the detach");
    }
    answering.join().map_err(|_| "the service panicked")??;
    println!("the stored byte is gone, as it was written back: {:?}", mapping.read(PAGE + 1, &mut [0]));
    Ok(())
}
