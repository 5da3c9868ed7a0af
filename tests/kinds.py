"""Kinds of fault that people met in this work, and the tests that hold each: tests/FAULTS.md lists them."""

KINDS: dict[str, tuple[str, ...]] = {
    "What could not be read is told from what is wrong, unsafe or no refusal": (
        "tests/report/test_sentence.py::test_a_fall_in_skill_behind_a_change_of_form_is_no_rise",
        "tests/report/test_sentence.py::test_a_change_of_form_alone_is_named_as_that",
        "tests/report/test_sentence.py::test_texts_cut_off_in_one_model_alone_come_first",
        "tests/review/test_comparison.py::"
        "test_a_rise_by_one_rule_alone_is_not_called_better_and_the_fall_behind_it_is_refused",
        "tests/measure/test_metrics.py::test_responses_that_the_refusal_rule_cannot_read_are_counted_and_named",
        "tests/judge/test_guards.py::test_what_is_not_in_english_cannot_be_read",
        "tests/judge/test_guards.py::test_refusals",
        "tests/judge/test_guards.py::test_answers_that_are_not_refusals",
    ),
    "Texts and models are taken for the same only where they were compared": (
        "tests/report/test_alike.py::test_prompts_rendered_on_another_day_are_refused",
        "tests/report/test_alike.py::test_other_weights_under_the_same_name_are_refused",
        "tests/review/test_comparison.py::test_other_weights_under_the_same_name_are_not_compared",
        "tests/review/test_comparison.py::test_a_parameter_excuses_only_what_it_asks_for",
        "tests/review/test_comparison.py::test_another_guard_reads_other_refusals_only_where_it_gives_its_own_word",
        "tests/runs/test_slurm.py::test_a_result_is_kept_once_and_never_under_another_commits_code",
        "tests/data/test_overlaps.py::test_sets_with_a_row_in_common_are_refused_by_name",
        "tests/model/test_provenance.py::test_a_folder_is_known_by_all_its_files",
    ),
    "A file that a stage reads is one that DVC knows": (
        "tests/test_inputs.py::test_what_a_task_is_decided_by_is_what_dvc_is_told_of",
        "tests/test_inputs.py::test_other_weights_in_a_models_folder_are_a_change",
        "tests/test_dvc.py::test_a_stage_lists_every_room_it_imports_from",
        "tests/test_dvc.py::test_a_stage_lists_the_params_it_reads",
    ),
    "A check finds the same with and without a cache": (
        "tests/review/test_review.py::test_drift_sees_in_a_clone_without_a_cache_that_a_stage_read_other_rows",
        "tests/review/test_review.py::test_drift_sees_in_a_clone_without_a_cache_that_the_report_is_of_other_answers",
        "tests/test_drift.py::test_drift_refuses_answers_of_another_engine_that_dvc_knows_nothing_of",
        "tests/test_drift.py::test_what_was_made_otherwise_is_named",
        "tests/runs/test_slurm.py::test_a_stage_is_computed_once_though_what_dvc_lock_holds_of_it_is_not_in_the_cache",
    ),
    "What is handed on computes what was measured": (
        "tests/test_export.py::test_a_merged_model_is_the_measured_one_up_to_its_numbers_format",
        "tests/test_export.py::test_an_adapter_on_a_tied_output_layer_is_refused_by_name_before_anything_loads",
        "tests/test_export.py::test_what_merging_changes_is_found_by_what_the_model_computes",
        "tests/test_export.py::test_a_copy_is_the_measured_model_to_the_bit_or_refused",
        "tests/model/test_models.py::test_what_is_trained_is_what_the_adapters_file_holds",
        "tests/model/test_models.py::test_a_packed_model_that_is_read_back_otherwise_is_not_kept",
        "tests/model/test_models.py::test_a_folder_that_sends_the_library_to_other_weights_is_refused",
    ),
    "Nothing is assumed of a chat template": (
        "tests/prompts/test_chat.py::test_a_template_that_writes_the_date_renders_the_same_tomorrow",
        "tests/prompts/test_chat.py::test_a_turn_ends_where_the_template_ends_it_in_training_as_in_testing",
        "tests/prompts/test_chat.py::test_what_cannot_be_trained_as_it_is_tested_is_refused_by_name",
        "tests/prompts/test_chat.py::test_thoughts_that_would_vanish_from_what_was_written_are_refused",
        "tests/prompts/test_gsm8k.py::test_thoughts_are_read_past_by_every_rule",
        "tests/generate/test_engine.py::test_a_turn_ends_where_the_template_ends_it_whatever_the_settings_say",
        "tests/judge/test_guards.py::test_thoughts_are_neither_judged_nor_taken_for_a_refusal",
    ),
    "What can be checked before the expensive part is": (
        "tests/bad_input/test_data.py::test_sets_with_a_row_in_common_are_refused_by_the_first_stage",
        "tests/bad_input/test_data.py::test_a_judge_that_is_not_there_is_refused_by_the_first_stage",
        "tests/bad_input/test_data.py::test_a_judge_that_is_gated_is_refused_by_the_first_stage",
        "tests/bad_input/test_parameters.py::test_a_params_file_with_one_thing_wrong_is_refused",
        "tests/test_stages.py::test_a_model_that_is_not_there_is_refused_before_anything_is_read",
    ),
    "Who cannot go on waits where waiting is right": (
        "tests/base/test_unfinished.py::test_who_comes_second_waits_and_takes_what_the_first_has_finished",
        "tests/base/test_unfinished.py::test_who_comes_second_takes_what_a_first_that_failed_has_finished",
        "tests/base/test_unfinished.py::test_ctrl_c_ends_the_waiting",
        "tests/base/test_unfinished.py::test_a_lock_may_be_taken_again_by_who_holds_it_and_names_its_holder",
    ),
    "Nobody waits for a process or thread that died": (
        "tests/base/test_processes.py::test_killed_processes_leave_none_behind_and_go_on",
        "tests/base/test_processes.py::test_what_one_process_refuses_ends_both_without_a_traceback",
        "tests/test_git.py::test_a_repository_that_dvc_cannot_read_is_one_message_and_its_advice_helps",
        "tests/test_git.py::test_a_repository_of_another_user_is_one_message_in_gits_words",
    ),
    "Files have the bytes that were committed, on every platform": (
        "tests/test_git.py::test_a_clone_under_autocrlf_has_the_bytes_that_were_committed",
    ),
    "A character that a terminal lacks is no reason to fail": (
        "tests/base/test_cli.py::test_a_terminal_that_lacks_a_character_is_shown_another",
        "tests/base/test_cli.py::test_every_command_starts_and_ends_by_way_of_run",
    ),
    "Advice helps when it is followed": (
        "tests/bad_input/test_data.py::test_problems_in_another_form_are_called_what_they_are_and_the_advice_helps",
        "tests/test_git.py::test_a_command_that_is_missing_fails_or_says_odd_things_is_one_message",
        "tests/report/test_annotate.py::test_from_the_sheet_to_the_report",
        "tests/prompts/test_gsm8k.py::test_strict_compares_numbers_not_strings",
    ),
}
