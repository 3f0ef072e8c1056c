//! Every RocksDB setting, in one place. A cell runs eight stores in 40 MB, so all of them are small and silent.

use crate::Migration;
use creel_store::HistoryBounds;
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, InfoLogger, LogLevel,
    ReadOptions, WriteOptions,
};

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// The schema version of this program's records, at least 1.
    pub schema_version: u32,
    /// The steps from older versions.
    pub migrations: Vec<Migration>,
    /// Unflushed data held in memory, in MiB; at most two such buffers exist. The log on disk is as big.
    pub write_buffer_mb: usize,
    /// Cache of decompressed blocks, indexes and filters, in MiB.
    pub cache_mb: usize,
    /// How much a watch may lag behind.
    pub history: HistoryBounds,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            schema_version: 1,
            migrations: Vec::new(),
            write_buffer_mb: 4,
            cache_mb: 1,
            history: HistoryBounds::default(),
        }
    }
}

pub(crate) fn database(options: &Options) -> rocksdb::Options {
    let mut db = rocksdb::Options::default();
    db.create_if_missing(true);

    // Durability. Point in time: a torn last write is dropped, nothing after the first damage is applied; `acked`
    // tells whether more than unanswered writes was dropped. Reused log files can't be recovered that way.
    db.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    db.set_recycle_log_file_num(0);
    db.set_track_and_verify_wals_in_manifest(true);

    // Memory: small buffers made of small arenas, so that an idle store holds almost nothing.
    db.set_write_buffer_size(options.write_buffer_mb.max(1) << 20);
    db.set_max_write_buffer_number(2);
    db.set_arena_block_size(64 << 10);
    db.set_max_open_files(128);
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(&Cache::new_lru_cache(options.cache_mb.max(1) << 20));
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    // Most compares ask for keys that don't exist.
    blocks.set_bloom_filter(10.0, false);
    // Of indexes and filters only the pages that are asked for are in memory: whole ones are as big as the cache
    // when a store holds a million keys, and every read would push them out again.
    blocks.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    blocks.set_partition_filters(true);
    blocks.set_metadata_block_size(4 << 10);
    db.set_block_based_table_factory(&blocks);

    // Disk.
    db.set_compression_type(DBCompressionType::Lz4);
    db.set_target_file_size_base(16 << 20);
    db.set_max_bytes_for_level_base(64 << 20);
    db.set_manifest_preallocation_size(64 << 10);
    db.set_max_manifest_file_size(4 << 20);

    // Threads, and no timers: an idle store must not wake the processor.
    db.set_max_background_jobs(2);
    db.set_max_subcompactions(1);
    db.set_max_file_opening_threads(1);
    db.set_stats_dump_period_sec(0);
    db.set_stats_persist_period_sec(0);
    db.set_skip_stats_update_on_db_open(true);

    // What RocksDB says is part of our log. A file of its own would hold a buffer and, in memory, every line of the
    // options that it begins with.
    db.set_info_logger(InfoLogger::new_callback_logger(LogLevel::Warn, log));
    db
}

fn log(level: LogLevel, message: &str) {
    match level {
        LogLevel::Debug | LogLevel::Info | LogLevel::Header => {}
        LogLevel::Warn => tracing::warn!(message, "rocksdb"),
        LogLevel::Error | LogLevel::Fatal => tracing::error!(message, "rocksdb"),
    }
}

/// Every write is on the disk before it returns.
pub(crate) fn synced() -> WriteOptions {
    let mut write = WriteOptions::default();
    write.set_sync(true);
    write
}

/// Reads of the range between two raw keys.
pub(crate) fn between(lower: Vec<u8>, upper: Vec<u8>) -> ReadOptions {
    let mut read = ReadOptions::default();
    read.set_iterate_lower_bound(lower);
    read.set_iterate_upper_bound(upper);
    read
}
