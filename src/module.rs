//! The hooks of the module into the life of a worker.

use crate::conf::Main;

/// A worker begins.
pub fn init_process(main: &Main) {
    main.begin_counting();
    main.redis.iter().for_each(|redis| redis.start());
}

/// The worker's event loop has ended: nothing may be left open.
pub fn exit_process(main: &Main) {
    crate::request::batch::shut_down();
    for redis in &main.redis {
        redis.shut_down();
    }
    main.end_counting();
}
