#![cfg(loom)]
use std::sync::atomic::{AtomicU64, Ordering};
use upager_verify::world::World;
fn model(name: &str, bound: Option<usize>, f: impl Fn() + Send + Sync + 'static) {
    let n = std::sync::Arc::new(AtomicU64::new(0));
    let m = n.clone();
    let mut b = loom::model::Builder::new();
    let _ = bound;
    b.preemption_bound = std::env::var("PB").ok().map(|s| s.parse().unwrap());
    b.max_branches = 100_000;
    let t = std::time::Instant::now();
    b.check(move || {
        m.fetch_add(1, Ordering::Relaxed);
        f()
    });
    println!("{name}: {} executions, {:?}", n.load(Ordering::Relaxed), t.elapsed());
}
#[test]
fn detach_fault() {
    model("detach/fault", None, || {
        let w = World::new(1);
        let w2 = w.clone();
        let t = loom::thread::spawn(move || {
            let mut r = w2.read(0);
            let x = r.poll();
            (r, x)
        });
        w.pager.detach_vmo(&w.vmo).unwrap();
        let (mut r, x) = t.join().unwrap();
        let x = x.or_else(|| r.settle());
        assert_eq!(x, Some(Err(upager::Status::BadState)));
        drop(r);
        w.end_of_the_world();
    });
}
#[test]
fn supply_fault() {
    model("supply/fault", None, || {
        let w = World::new(1);
        let w2 = w.clone();
        let t = loom::thread::spawn(move || {
            let mut r = w2.read(0);
            let x = r.poll();
            (r, x)
        });
        w.supply(0, 5).unwrap();
        let (mut r, x) = t.join().unwrap();
        let x = x.or_else(|| r.settle());
        assert_eq!(x, Some(Ok(5)));
        drop(r);
        w.end_of_the_world();
    });
}
