//! The heap of this process.

/// Gives free memory back to the system: what a busy time needed lies between what is still in use, and glibc keeps it.
pub fn give_back_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer, and locks each arena while it looks through what is free there.
    let _ = unsafe { libc::malloc_trim(0) };
}
