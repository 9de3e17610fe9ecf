//! Scenarios that once failed, shortened.

/// Each with its name.
pub const ALL: [(&str, &str); 21] = [
    ("issue_01_empty_datagram_before_repair", include_str!("scenarios/issue_01_empty_datagram_before_repair.txt")),
    ("issue_01_event_before_repair", include_str!("scenarios/issue_01_event_before_repair.txt")),
    ("issue_02_wrong_bit_rate", include_str!("scenarios/issue_02_wrong_bit_rate.txt")),
    ("issue_03_noise_is_no_data", include_str!("scenarios/issue_03_noise_is_no_data.txt")),
    ("issue_03_text_is_no_data", include_str!("scenarios/issue_03_text_is_no_data.txt")),
    ("issue_04_other_port_is_no_data", include_str!("scenarios/issue_04_other_port_is_no_data.txt")),
    ("issue_04_start_is_lost_twice", include_str!("scenarios/issue_04_start_is_lost_twice.txt")),
    ("issue_05_invalid_mode", include_str!("scenarios/issue_05_invalid_mode.txt")),
    ("issue_05_invalid_mode_of_a_running_bus", include_str!("scenarios/issue_05_invalid_mode_of_a_running_bus.txt")),
    ("issue_06_repair_while_unreachable", include_str!("scenarios/issue_06_repair_while_unreachable.txt")),
    ("issue_07_doubled_start_and_lost_check", include_str!("scenarios/issue_07_doubled_start_and_lost_check.txt")),
    ("issue_08_late_status", include_str!("scenarios/issue_08_late_status.txt")),
    ("issue_08_unknown_status", include_str!("scenarios/issue_08_unknown_status.txt")),
    ("issue_09_sparse_frames", include_str!("scenarios/issue_09_sparse_frames.txt")),
    ("issue_09_suspended_process", include_str!("scenarios/issue_09_suspended_process.txt")),
    ("issue_10_neighbours_answer", include_str!("scenarios/issue_10_neighbours_answer.txt")),
    ("issue_11_no_contradiction", include_str!("scenarios/issue_11_no_contradiction.txt")),
    ("issue_11_old_evidence", include_str!("scenarios/issue_11_old_evidence.txt")),
    ("issue_12_filter_passes_nothing", include_str!("scenarios/issue_12_filter_passes_nothing.txt")),
    ("issue_12_only_init_is_answered", include_str!("scenarios/issue_12_only_init_is_answered.txt")),
    ("issue_12_port_closes_after_frames", include_str!("scenarios/issue_12_port_closes_after_frames.txt")),
];
