//! The configuration: this module's directives, one file per concept, and what they leave behind.

mod command;
mod content;
mod counted;
mod definition;
mod field;
mod location;
mod methods;
pub mod redis;
#[cfg(feature = "schema")]
pub mod schema;
mod words;

pub use content::Content;
pub use location::Location;

use std::ffi::CStr;
use std::rc::Rc;

use crate::ngx::context::{HTTP, IF_IN_LOCATION, LIMIT_EXCEPT, LOCATION, SERVER};
use crate::ngx::{CommandArgs, Directive};

/// What is configured once, for the http block.
#[derive(Default)]
pub struct Main {
    /// Each `meteorit_redis` block, and each URL that stands in place of a name.
    pub redis: Vec<Rc<redis::Redis>>,
    /// The variables that directives define.
    pub defined: Vec<Defined>,
    /// Whether `meteorit_cors` stands anywhere.
    pub has_cors: bool,
    /// What it has of the memory that workers share.
    shared: counted::Shared,
}

impl Main {
    /// The Redis of that name, for the directive that stands at `position`.
    fn named(&self, name: &str, position: &crate::ngx::Position) -> Result<Rc<redis::Redis>, String> {
        let named = self.redis.iter().find(|redis| redis.settings.name == name);
        named.cloned().ok_or_else(|| format!("unknown \"meteorit_redis\" \"{name}\" in {position}"))
    }
}

/// A variable that directives define, in one location or in several.
pub struct Defined {
    /// In lower case.
    pub name: String,
    /// Whether any of them makes it a member of the event.
    pub is_member: bool,
}

/// Every directive of this module. A setting stands where nginx lets such settings stand, and is inherited by what is
/// inside.
pub const DIRECTIVES: &[Directive] = &[
    Directive { name: c"meteorit_zone", contexts: HTTP, args: CommandArgs::Two, set: counted::zone },
    Directive { name: c"meteorit_redis", contexts: HTTP, args: CommandArgs::NamedBlock, set: redis::block },
    Directive {
        name: c"meteorit_pass",
        contexts: LOCATION | IF_IN_LOCATION | LIMIT_EXCEPT,
        args: CommandArgs::One,
        set: content::pass,
    },
    Directive { name: c"meteorit_selftest", contexts: LOCATION, args: CommandArgs::One, set: content::selftest },
    Directive {
        name: c"meteorit_command",
        contexts: HTTP | SERVER | LOCATION | IF_IN_LOCATION,
        args: CommandArgs::OneOrMore,
        set: command::command,
    },
    Directive {
        name: c"meteorit_reject_command",
        contexts: HTTP | SERVER | LOCATION | IF_IN_LOCATION,
        args: CommandArgs::OneOrMore,
        set: command::reject_command,
    },
    Directive { name: c"meteorit_status", contexts: LOCATION, args: CommandArgs::NoneOrOne, set: content::status },
    Directive { name: c"meteorit_ready", contexts: LOCATION, args: CommandArgs::Any, set: content::ready },
    setting(c"meteorit_reject_status", CommandArgs::One, location::reject_status),
    setting(c"meteorit_ack", CommandArgs::One, location::ack),
    setting(c"meteorit_retry", CommandArgs::One, location::retry),
    setting(c"meteorit_spool", CommandArgs::Flag, location::spool),
    setting(c"meteorit_transaction", CommandArgs::Flag, location::transaction),
    setting(c"meteorit_set", CommandArgs::TwoOrThree, definition::set),
    setting(c"meteorit_time", CommandArgs::TwoOrThree, definition::time),
    setting(c"meteorit_hash", CommandArgs::OneOrMore, definition::hash),
    #[cfg(feature = "schema")]
    setting(c"meteorit_schema", CommandArgs::One, schema::schema),
    #[cfg(feature = "schema")]
    setting(c"meteorit_schema_by", CommandArgs::NamedBlock, schema::schema_by),
    #[cfg(feature = "schema")]
    setting(c"meteorit_schema_dry_run", CommandArgs::Flag, location::schema_dry_run),
    setting(c"meteorit_dry_run", CommandArgs::Flag, location::dry_run),
    setting(c"meteorit_methods", CommandArgs::OneOrMore, location::methods),
    setting(c"meteorit_cors", CommandArgs::OneOrMore, location::cors),
    setting(c"meteorit_batch", CommandArgs::OneOrTwo, location::batch),
    setting(c"meteorit_max_body_size", CommandArgs::One, location::max_body_size),
    setting(c"meteorit_response", CommandArgs::One, location::response),
    setting(c"meteorit_field", CommandArgs::TwoOrThree, location::field),
    setting(c"meteorit_key_limit", CommandArgs::OneOrMore, location::key_limit),
    setting(c"meteorit_event_id", CommandArgs::One, location::event_id),
    setting(c"meteorit_duplicate_names", CommandArgs::One, location::duplicate_names),
    setting(c"meteorit_intercept_errors", CommandArgs::Flag, location::intercept_errors),
    setting(c"meteorit_max_depth", CommandArgs::One, location::max_depth),
    setting(c"meteorit_max_event_size", CommandArgs::One, location::max_event_size),
    setting(c"meteorit_max_members", CommandArgs::One, location::max_members),
];

const fn setting(
    name: &'static CStr,
    args: CommandArgs,
    set: fn(&mut crate::ngx::Conf, &mut Main, &mut Location) -> Result<(), String>,
) -> Directive {
    Directive { name, contexts: HTTP | SERVER | LOCATION, args, set }
}
