//! Runs one path a number of times: `paths NAME COUNT`, for callgrind; see
//! [`instructions`](upager_benches::instructions). `paths` alone lists the names.

use std::process::ExitCode;

use upager_benches::instructions::PATHS;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, count] = &arguments[..] else {
        for (name, _) in PATHS {
            println!("{name}");
        }
        return ExitCode::SUCCESS;
    };
    let path = PATHS.iter().find(|(path, _)| path == name);
    if let (Some((_, run)), Ok(count)) = (path, count.parse()) {
        run(count);
        ExitCode::SUCCESS
    } else {
        eprintln!("paths: no such path or count: {name} {count}");
        ExitCode::FAILURE
    }
}
