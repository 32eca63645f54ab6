//! What a handle names, and the one table of this process.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, LazyLock};

use arc_swap::ArcSwapOption;
use upager::{AnonymousVmo, Pager, Port, Result, Status, Vmo};
use upager_linux::LinuxPlatform;

use crate::address_space::{self, Children, Vmar};
use crate::in_use::Record;
use crate::table::{BadHandle, Call, Full, Place, Table};
use crate::types::{
    ZX_MAX_NAME_LEN, ZX_OBJ_TYPE_PAGER, ZX_OBJ_TYPE_PORT, ZX_OBJ_TYPE_VMAR, ZX_OBJ_TYPE_VMO, ZX_RIGHT_OP_CHILDREN,
    ZX_ROOT_VMAR_RIGHTS, zx_handle_t, zx_koid_t, zx_obj_type_t, zx_rights_t,
};

/// Where the frames of this process's VMOs come from: the platform that can map them.
pub(crate) type Host = LinuxPlatform;

pub(crate) static PLATFORM: LazyLock<Arc<Host>> = LazyLock::new(|| Arc::new(Host::new()));
static TABLE: LazyLock<Table<Object>> = LazyLock::new(|| Table::new(RandomState::new().hash_one(std::process::id())));
/// Zircon's first; those below are reserved.
static NEXT_KOID: AtomicU64 = AtomicU64::new(1024);

pub(crate) type Name = [u8; ZX_MAX_NAME_LEN];

pub(crate) enum Kind {
    Pager(Pager<Host>),
    Port(Port<Host>),
    Vmo(Memory),
    /// What is in it, the [tree](crate::address_space) has.
    Vmar(Arc<Vmar>),
}

/// The two kinds of VMO, which are one to who has handles.
pub(crate) enum Memory {
    Paged { vmo: Arc<Vmo<Host>>, resizable: bool },
    Anonymous(AnonymousVmo<Host>),
}

pub(crate) struct Object {
    pub(crate) koid: zx_koid_t,
    /// None was set: zeros.
    name: ArcSwapOption<Name>,
    pub(crate) kind: Kind,
}

impl Object {
    pub(crate) fn name(&self) -> Name {
        self.name.load().as_deref().copied().unwrap_or_default()
    }

    pub(crate) fn set_name(&self, name: Name) {
        self.name.store(Some(Arc::new(name)));
    }

    pub(crate) const fn object_type(&self) -> zx_obj_type_t {
        match self.kind {
            Kind::Pager(_) => ZX_OBJ_TYPE_PAGER,
            Kind::Port(_) => ZX_OBJ_TYPE_PORT,
            Kind::Vmo(_) => ZX_OBJ_TYPE_VMO,
            Kind::Vmar(_) => ZX_OBJ_TYPE_VMAR,
        }
    }
}

impl From<BadHandle> for Status {
    fn from(_: BadHandle) -> Self {
        Self::BadHandle
    }
}

impl From<Full> for Status {
    fn from(_: Full) -> Self {
        Self::NoMemory // as Zircon says it
    }
}

thread_local! {
    /// The calling thread's record, once it has one. It needs no drop, so to look here is to look at an address.
    static MINE: Cell<Option<&'static Record<Object>>> = const { Cell::new(None) };
    static END: End = const { End };
}

/// Gives the record back as the thread ends.
struct End;

impl Drop for End {
    fn drop(&mut self) {
        if let Some(record) = MINE.take() {
            record.release();
        }
    }
}

/// The handles of one call. Each is checked as it is asked for: in the order of the arguments, is it one, has it
/// the type, has it the rights.
pub(crate) struct Handles<const N: usize> {
    call: Call<'static, Object, N>,
    _lent: Lent, // dropped after the call
}

/// A record for one call.
enum Lent {
    /// The thread's, which keeps it.
    Mine(&'static Record<Object>),
    /// Of a call inside a call, or at the end of a thread.
    Spare(&'static Record<Object>),
}

impl Lent {
    #[inline]
    fn get(table: &'static Table<Object>) -> Self {
        match MINE.get() {
            Some(record) if record.is_idle() => Self::Mine(record),
            mine => Self::another(table, mine.is_none()),
        }
    }

    #[cold]
    fn another(table: &'static Table<Object>, is_first: bool) -> Self {
        let record = table.records().take();
        // Not at the end of the thread: it would not be given back.
        if is_first && END.try_with(|_| ()).is_ok() {
            MINE.set(Some(record));
            return Self::Mine(record);
        }
        Self::Spare(record)
    }

    #[inline]
    const fn record(&self) -> &'static Record<Object> {
        let (Self::Mine(record) | Self::Spare(record)) = self;
        record
    }
}

impl Drop for Lent {
    #[inline]
    fn drop(&mut self) {
        if let Self::Spare(record) = self {
            record.release();
        }
    }
}

impl<const N: usize> Handles<N> {
    #[allow(clippy::inline_always)] // what it returns would go through memory, which takes longer than to find it
    #[inline(always)]
    pub(crate) fn new(values: [zx_handle_t; N]) -> Self {
        let table = &*TABLE;
        let lent = Lent::get(table);
        Self { call: table.call(lent.record(), values), _lent: lent }
    }

    /// The object, of whatever type, and the rights to it.
    #[inline]
    pub(crate) fn object(&self, nth: usize) -> Result<(&Object, zx_rights_t)> {
        Ok(self.call.get(nth)?)
    }

    #[inline]
    pub(crate) fn pager(&self, nth: usize) -> Result<&Pager<Host>> {
        match &self.object(nth)?.0.kind {
            Kind::Pager(pager) => Ok(pager),
            _ => Err(Status::WrongType),
        }
    }

    #[inline]
    pub(crate) fn port(&self, nth: usize, needed: zx_rights_t) -> Result<&Port<Host>> {
        let (object, rights) = self.object(nth)?;
        let Kind::Port(port) = &object.kind else { return Err(Status::WrongType) };
        has(rights, needed)?;
        Ok(port)
    }

    #[inline]
    pub(crate) fn vmo(&self, nth: usize, needed: zx_rights_t) -> Result<&Memory> {
        let (object, rights) = self.object(nth)?;
        let Kind::Vmo(memory) = &object.kind else { return Err(Status::WrongType) };
        has(rights, needed)?;
        Ok(memory)
    }

    /// A VMAR, and whether the handle has those in it besides.
    pub(crate) fn vmar(&self, nth: usize, needed: zx_rights_t) -> Result<(&Arc<Vmar>, Children)> {
        let (object, rights) = self.object(nth)?;
        let Kind::Vmar(vmar) = &object.kind else { return Err(Status::WrongType) };
        has(rights, needed)?;
        let children = if rights & ZX_RIGHT_OP_CHILDREN == 0 { Children::No } else { Children::Yes };
        Ok((vmar, children))
    }

    /// The VMO, for a call of its pager.
    ///
    /// # Errors
    /// As [`vmo`](Self::vmo).
    #[inline]
    pub(crate) fn pagers_vmo(&self, nth: usize) -> Result<PagersVmo<'_>> {
        Ok(match self.vmo(nth, 0)? {
            Memory::Paged { vmo, .. } => PagersVmo(Some(vmo)),
            Memory::Anonymous(_) => PagersVmo(None),
        })
    }

    /// One more handle to the nth object.
    pub(crate) fn duplicate(&self, nth: usize, rights: zx_rights_t) -> Result<zx_handle_t> {
        Ok(TABLE.reserve()?.duplicate(&self.call, nth, rights)?)
    }
}

/// A VMO that a call of a pager is about; or one that no pager made, which is no pager's.
pub(crate) struct PagersVmo<'a>(Option<&'a Vmo<Host>>);

impl<'a> PagersVmo<'a> {
    /// # Errors
    /// INVALID_ARGS: no pager made it. That it is another pager's, the pager itself says.
    #[inline]
    pub(crate) fn get(self) -> Result<&'a Vmo<Host>> {
        self.0.ok_or(Status::InvalidArgs)
    }
}

#[inline]
pub(crate) fn has(rights: zx_rights_t, needed: zx_rights_t) -> Result<()> {
    if rights & needed == needed { Ok(()) } else { Err(Status::AccessDenied) }
}

/// A place for the handle of an object that is about to be made: so that nothing has happened if there is none.
pub(crate) struct NewHandle(Place<'static, Object>);

impl NewHandle {
    pub(crate) fn reserve() -> Result<Self> {
        Ok(Self(TABLE.reserve()?))
    }

    pub(crate) fn fill(self, kind: Kind, rights: zx_rights_t) -> zx_handle_t {
        let koid = NEXT_KOID.fetch_add(1, Relaxed); // Relaxed: that no two get the same is all
        self.0.fill(Object { koid, name: ArcSwapOption::empty(), kind }, rights)
    }
}

/// The handle of the root VMAR, made when somebody asks for it first; 0 if there was no room for it then.
pub(crate) fn root_vmar() -> zx_handle_t {
    static ROOT: LazyLock<zx_handle_t> = LazyLock::new(|| {
        NewHandle::reserve().map_or(0, |place| place.fill(Kind::Vmar(address_space::root()), ZX_ROOT_VMAR_RIGHTS))
    });
    *ROOT
}

pub(crate) fn close(handle: zx_handle_t) -> Result<()> {
    Ok(TABLE.close(handle)?)
}

pub(crate) fn replace(
    handle: zx_handle_t,
    rights: impl FnOnce(zx_rights_t) -> Result<zx_rights_t>,
) -> Result<zx_handle_t> {
    TABLE.replace(handle, rights)
}
