//! The rows of the tables.

/// One figure of each engine.
pub struct Measure {
    /// Its name in JSON.
    pub name: &'static str,
    /// What it is.
    pub title: &'static str,
    /// The limit that zkv's figure is held against.
    pub limit: Option<&'static str>,
    /// Whether a higher figure is the better one.
    pub more_is_better: bool,
}

const fn less(name: &'static str, title: &'static str) -> Measure {
    Measure { name, title, limit: None, more_is_better: false }
}

const fn more(name: &'static str, title: &'static str) -> Measure {
    Measure { name, title, limit: None, more_is_better: true }
}

impl Measure {
    const fn beside(mut self, limit: &'static str) -> Self {
        self.limit = Some(limit);
        self
    }
}

/// All of them, in the order of the tables.
pub const MEASURES: &[Measure] = &[
    more("import_mb_s", "import, random order, MB/s").beside("limit_compress_mb_s"),
    more("import_krecords_s", "import, random order, thousand records/s"),
    less("import_cpu_s", "import, random order, CPU s"),
    less("import_peak_mib", "import, random order, peak memory, MiB"),
    more("sorted_mb_s", "import, key order, MB/s").beside("limit_compress_mb_s"),
    less("sorted_cpu_s", "import, key order, CPU s"),
    less("sorted_peak_mib", "import, key order, peak memory, MiB"),
    less("size_import", "size after importing, MB"),
    less("settle_s", "settling, s"),
    less("size", "size after settling, MB"),
    less("size_sorted", "size after importing in key order, MB"),
    less("open_ms", "open, ms"),
    less("heap_open_mib", "memory after opening, MiB"),
    less("heap_read_mib", "memory after reading, MiB"),
    less("get_us", "random get, us").beside("limit_decompress_us"),
    less("get_threads_us", "random get, all threads, us").beside("limit_decompress_threads_us"),
    less("zipf_us", "Zipfian get, us"),
    less("miss_us", "miss, us").beside("limit_line_us"),
    less("cold_us", "random get, cold, us"),
    less("limited_us", "random get, a tenth in memory, us"),
    more("iterate_mb_s", "iteration, MB/s").beside("limit_iterate_mb_s"),
    more("iterate_cpu_mb_s", "iteration, MB a second of CPU"),
    less("commit_us", "durable commit, us").beside("limit_sync_us"),
    less("commit_syncs", "durable commit, in bare syncs beside it"),
    more("commit_8_per_s", "durable commits of 8 threads, a second"),
    more("overwrite_krecords_s", "overwrites, thousand records/s")
        .beside("limit_compress_krecords_s"),
    less("size_overwritten", "size after overwriting, MB"),
    less("size_overwritten_settled", "the same, settled, MB"),
    more("delete_krecords_s", "deletes, thousand records/s"),
    less("size_deleted_settled", "size after deleting half, settled, MB"),
    more("ycsb_a_kops", "YCSB A, thousand operations/s"),
    more("ycsb_b_kops", "YCSB B, thousand operations/s"),
    more("ycsb_c_kops", "YCSB C, thousand operations/s"),
    more("ycsb_d_kops", "YCSB D, thousand operations/s"),
    more("ycsb_e_kops", "YCSB E, thousand operations/s"),
    more("ycsb_f_kops", "YCSB F, thousand operations/s"),
];

/// The limits, in the order of their table.
pub const LIMITS: &[(&str, &str)] = &[
    ("limit_copy_us", "copy of a value in memory, us"),
    ("limit_line_us", "copy of a cache line in memory, us"),
    ("limit_decompress_us", "decompression of a block, us"),
    ("limit_decompress_threads_us", "decompression of a block, all threads, us"),
    ("limit_iterate_mb_s", "decompression of all blocks, all threads, MB/s"),
    ("limit_compress_mb_s", "compression on all cores, MB/s"),
    ("limit_compress_krecords_s", "compression on all cores, thousand records/s"),
    ("limit_sync_us", "pwrite and fdatasync of a page, beside zkv's commits, us"),
];
