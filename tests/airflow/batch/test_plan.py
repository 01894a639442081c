"""Before anything is sent, each row becomes a checked message, a duplicate, a suppressed row or an error."""

from __future__ import annotations

from collections import Counter
from typing import Any

import jinja2
import pytest
from airflow.providers.common.compat.sdk import literal
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_apptoto.batch.plan import MAX_PROBLEMS, LeftOut
from airflow_provider_apptoto.batch.rows import rows_of, rows_of_file
from airflow_provider_apptoto.client import ApptotoConfigurationError
from airflow_provider_apptoto.client.messages import MESSAGE_FIELDS
from airflow_provider_apptoto.privacy import Redacted
from airflow_provider_apptoto.templating.provenance import SourceKind
from tests.support.planning import ADDRESS, OTHER_PHONE, PHONE, SECRET, payloads, plan_of, problems, refused, texts

SMS = {"type": "sms", "to": PHONE}
EVENT = {"type": "sms", "event_id": 12}
RAW = "{% raw %}...{% endraw %}"


def refusal(*arguments: Any, **options: Any) -> ApptotoConfigurationError:
    with pytest.raises(ApptotoConfigurationError) as raised:
        plan_of(*arguments, **options)
    assert SECRET not in f"{raised.value} {vars(raised.value)}"
    return raised.value


# --- what a row gives, and what defaults fill in


@pytest.mark.contract
def test_a_row_gives_fields_and_defaults_fill_in_the_others_out_of_its_own_columns() -> None:
    rows = [
        {"type": "sms", "to": PHONE, "first_name": "Mary"},
        {"type": "call", "to": OTHER_PHONE, "first_name": "Bob"},
        {"type": "email", "to": ADDRESS, "first_name": "Eve", "subject": "S"},
    ]
    defaults = {"message": "Hi {{ row.first_name }}, see you on {{ ds }}"}
    assert payloads(plan_of(rows, defaults, context={"ds": "2026-01-02"})) == [
        {"type": "sms", "to": PHONE, "message": "Hi Mary, see you on 2026-01-02"},
        {"type": "call", "to": OTHER_PHONE, "message": "Hi Bob, see you on 2026-01-02"},
        {"type": "email", "to": ADDRESS, "message": "Hi Eve, see you on 2026-01-02", "subject": "S"},
    ]


@pytest.mark.contract
def test_any_field_may_come_out_of_a_column_by_another_name() -> None:
    rows = [{"phone": PHONE, "kind": "sms", "tpl": 7}, {"kind": "email", "mail": ADDRESS, "tpl": "8"}]
    defaults = {
        "type": "{{ row.kind }}",
        "to": "{{ row.phone if row.kind == 'sms' else row.mail }}",
        "template_id": "{{ row.tpl }}",
    }
    assert payloads(plan_of(rows, defaults)) == [
        {"type": "sms", "to": PHONE, "template_id": "7"},
        {"type": "email", "to": ADDRESS, "template_id": "8"},
    ]


def test_without_defaults_rows_say_all() -> None:
    for defaults in (None, {}, dict.fromkeys(MESSAGE_FIELDS)):
        assert texts(plan_of([SMS | {"message": "Hi"}], defaults)) == ["Hi"]


COMPLETE: dict[str, dict[str, Any]] = {
    "type": SMS | {"message": "Hi"},
    "to": SMS | {"message": "Hi"},
    "event_id": EVENT | {"message": "Hi"},
    "participant_id": {"type": "sms", "participant_id": 34, "message": "Hi"},
    "message": SMS | {"message": "Hi"},
    "subject": {"type": "email", "to": ADDRESS, "message": "Hi", "subject": "S"},
    "template_id": SMS | {"template_id": 7},
}
"""Columns of a message that gives this field."""


@pytest.mark.parametrize("kind", list(SourceKind))
@pytest.mark.parametrize("field", MESSAGE_FIELDS)
def test_a_field_that_a_row_and_defaults_both_give_is_an_error_of_the_row(field: str, kind: SourceKind) -> None:
    complete = COMPLETE[field]
    without = {name: value for name, value in complete.items() if name != field}
    plan = plan_of([complete, without, without | {field: None}], {field: complete[field]}, kind=kind)
    assert problems(plan) == [
        (
            0,
            None,
            field,
            f"both the row and defaults set it. Remove the column {field}, or remove {field} from defaults",
        )
    ]
    assert (plan.problems[0].code, plan.problems[0].column) == ("given_twice", field)
    assert [planned.index for planned in plan.messages] == [1]
    assert plan.duplicates == 1


def test_a_default_of_none_is_none_so_the_row_gives_the_field() -> None:
    assert texts(plan_of([SMS | {"message": "Hi"}], {"message": None, "to": None})) == ["Hi"]


@pytest.mark.parametrize("missing", [{}, {"message": None}])
def test_a_column_that_is_missing_or_null_is_filled_in(missing: dict[str, Any]) -> None:
    assert texts(plan_of([SMS | missing], {"message": "Default"})) == ["Default"]


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"to": ""}, "to"),
        ({"to": " "}, "to"),
        ({"message": ""}, "message"),
        ({"message": " \u200b"}, "message"),
        ({"type": ""}, "type"),
        ({"template_id": ""}, "template_id"),
        ({"event_id": ""}, "to"),
    ],
    ids=ascii,
)
def test_a_blank_string_of_json_is_an_error_and_no_default_covers_it_up(row: dict[str, Any], field: str) -> None:
    defaults = SMS | {"message": "Default", "template_id": 7}
    plan = plan_of([row], defaults)
    assert refused(plan)[0] == field
    [value] = row.values()
    assert (plan.problems[0].code == "given_twice") is bool(value.strip())


def test_a_blank_cell_of_a_csv_file_is_filled_in(tmp_path: Any) -> None:
    path = tmp_path / "people.csv"
    path.write_text(f"to,message,event_id\n{PHONE},  ,\n")
    assert payloads(plan_of(rows_of_file(str(path)), {"type": "sms", "message": "Default"})) == [
        {"type": "sms", "to": PHONE, "message": "Default"}
    ]


@pytest.mark.parametrize("text", ["", " ", "{{ row.blank }}", "{{ row.blank }}\n\u200b{{ '' }}"], ids=ascii)
def test_a_default_that_comes_out_blank_is_never_sent(text: str) -> None:
    field, reason = refused(plan_of([SMS | {"blank": " "}], {"message": text}))
    assert (field, reason) == ("message", "must not be blank")


@pytest.mark.parametrize(
    ("defaults", "problem"),
    [
        ({"mesage": SECRET}, "did you mean message?"),
        ({"body": "x"}, "'body' is not one of type, to, event_id"),
        ({1: "x"}, "1 is not one of"),
        ([], "must be a mapping of fields, not list"),
        (SECRET, "must be a mapping of fields, not str"),
    ],
)
def test_defaults_that_are_no_fields_are_an_error_even_before_the_first_row(defaults: Any, problem: str) -> None:
    error = refusal([], defaults)
    assert error.field == "defaults"
    assert problem in error.problem


# --- columns in texts


@pytest.mark.contract
@pytest.mark.parametrize(
    "column", ["items", "keys", "values", "copy", "get", "pop", "update", "name", "event", "row", "ds", "class", "_row"]
)
def test_a_column_of_any_name_means_the_column(column: str) -> None:
    rows = [SMS | {column: "Mary", "other": SECRET}]
    assert texts(plan_of(rows, {"message": f"{{{{ row.{column} }}}}!"}, context={"ds": "D"})) == ["Mary!"]
    assert texts(plan_of(rows, {"message": f"{{{{ row['{column}'] }}}}!"}, context={"ds": "D"})) == ["Mary!"]


@pytest.mark.contract
def test_a_column_whose_name_is_no_identifier_is_named_in_brackets() -> None:
    row = EVENT | {"first name": "Mary", "Größe": "M", "1": "one"}
    text = "{{ row['first name'] }} {{ row['Größe'] }} {{ row['1'] }} {{ name }}"
    assert texts(plan_of([row], {"message": text})) == ["Mary M one {{ name }}"]


@pytest.mark.contract
@pytest.mark.parametrize(
    "text",
    [
        "{{ row }}",
        "Hi {{ row }}!",
        "{{ row | string }}",
        "{{ row ~ '' }}",
        "{{ [row] }}",
        "{{ {'a': row} }}",
        "{{ '%s' | format(row) }}",
        "{{ '{}'.format(row) }}",
        "{{ row | default('x') }}",
        "{{ row | tojson }}",
        "{{ row | list }}",
        "{{ row | join }}",
        "{{ row | pprint }}",
        "{{ row | urlencode }}",
        "{{ row.__class__ }}",
        "{{ row.__dict__ }}",
        "{{ row._row }}",
        "{{ row['_row'] }}",
        "{{ row | attr('_row') }}",
        "{% set _ = row %}{{ _ }}",
        "{% for value in row %}{{ value }}{% endfor %}",
    ],
)
@pytest.mark.parametrize("target", [SMS, EVENT], ids=["person", "event"])
def test_a_row_as_a_whole_is_an_error_and_never_a_text(text: str, target: dict[str, Any]) -> None:
    field, _ = refused(plan_of([target | {"diagnosis": SECRET}], {"message": text}))
    assert field == "message"


@pytest.mark.contract
@pytest.mark.parametrize(
    "options", [{}, {"template_undefined": jinja2.Undefined}, {"render_template_as_native_obj": True}]
)
@pytest.mark.parametrize(
    "text", ["{{ row.nope }}", "{{ row['nope'] }}", "{{ row.nope ~ 'x' }}", "{{ row[row.secret] }}", "{{ [row.nope] }}"]
)
def test_a_column_that_a_row_lacks_is_an_error_of_this_row(text: str, options: dict[str, Any]) -> None:
    plan = plan_of(
        [SMS | {"nope": "here", "secret": "nope"}, {"type": "sms", "to": OTHER_PHONE, "secret": SECRET}],
        {"message": text},
        **options,
    )
    [(index, _, field, reason)] = problems(plan)
    assert (index, field) == (1, "message")
    assert reason.endswith("is undefined")
    assert len(plan.messages) == 1


@pytest.mark.contract
def test_a_column_that_is_not_given_never_reads_as_none_and_may_have_a_substitute() -> None:
    row = SMS | {"first_name": None}
    assert refused(plan_of([row], {"message": "Hi {{ row.first_name }}"}))[0] == "message"
    assert texts(plan_of([row], {"message": "Hi {{ row.first_name or 'you' }}{{ row.nope | default('!') }}"})) == [
        "Hi you!"
    ]


@pytest.mark.contract
@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("Hi {{ row.first_name }}", "row.first_name"),
        ("Hi {{ row['first_name'] }}, Dr {{ row.doctor }}", "row.first_name"),
        ("Hi {{ row.first_name or row.doctor }}", "row.doctor"),
        ("Hi {{ row.first_name.upper() }}", "row.first_name"),
        ("{% if row.first_name is none %}{{ row['last name'] }}{% endif %}", 'row["last name"]'),
        ("Hi {{ row.first_name or 'you' }}\n{{ row.doctor }}", "row.doctor"),
        ("None of us forgot, {{ row.first_name | title }}", "row.first_name"),
        ("Hi {{ row.first_name | upper }}, see {{ row.other | length }}", "row.first_name"),
        ("{{ 'Hi ' ~ row.first_name }}", "row.first_name"),
        ("{{ [row.doctor] | join }}", "row.doctor"),
        ("{{ '%s' % row.doctor }}", "row.doctor"),
    ],
)
def test_the_error_of_an_empty_column_names_the_column_and_what_to_write(text: str, column: str) -> None:
    row = SMS | {"first_name": None, "doctor": None, "last name": None, "other": SECRET}
    plan = plan_of([row], {"message": text})
    names = {"row.first_name": "first_name", "row.doctor": "doctor", 'row["last name"]': "last name"}
    assert [(problem.code, problem.column) for problem in plan.problems] == [("field_empty", names[column])]
    assert refused(plan) == (
        "message",
        (
            f'{column} is empty, and the text would read "None" there. Fill in the column, or use '
            f'{{{{ {column} or "there" }}}}'
        ),
    )


def test_a_text_that_says_none_by_itself_is_sent_though_a_column_is_empty() -> None:
    row = SMS | {"first_name": None, "visits": "None"}
    text = "None missed: {{ row.first_name or 'none' }}, {{ row.visits }}"
    assert texts(plan_of([row], {"message": text})) == ["None missed: none, None"]


@pytest.mark.contract
def test_the_error_of_an_empty_column_offers_no_substitute_for_a_recipient() -> None:
    row = {"type": "sms", "phone": None, "message": "Hi"}
    plan = plan_of([row], {"to": "{{ row.phone }}"})
    assert refused(plan) == ("to", "row.phone is empty")
    assert (plan.problems[0].code, plan.problems[0].column) == ("field_empty", "phone")


@pytest.mark.contract
@pytest.mark.parametrize(
    "text",
    [
        "{% if row.middle_name %}{{ row.middle_name }}{% endif %}{{ params.doctor }}",
        "{{ row.middle_name or '' }}{{ nope }}",
        "{{ row[row.chosen] }}",
    ],
    ids=["None of another source", "undefined", "a name out of a value"],
)
def test_an_empty_column_is_not_blamed_for_what_it_did_not_cause(text: str) -> None:
    row = SMS | {"middle_name": None, "chosen": SECRET, SECRET: None}
    _, reason = refused(plan_of([row], {"message": text}, context={"params": {"doctor": None}}))
    assert "is empty" not in reason


@pytest.mark.contract
@pytest.mark.parametrize("value", ["{{ conn.apptoto_default.password }}", "{% if x %}", "{#", "a{{", "{{ name }}"])
@pytest.mark.parametrize("target", [SMS, EVENT], ids=["person", "event"])
@pytest.mark.parametrize("field", ["message", "subject"])
def test_braces_out_of_a_column_are_neither_rendered_nor_sent(value: str, target: dict[str, Any], field: str) -> None:
    to = {"to": ADDRESS} if "to" in target else {}
    row = target | to | {"type": "email", "value": SECRET + value}
    defaults = {"message": "x", field: "Hi {{ row.value }}"}
    assert refused(plan_of([row], defaults))[0] == field


@pytest.mark.contract
def test_braces_that_two_columns_would_make_together_are_found() -> None:
    assert (
        refused(plan_of([EVENT | {"a": "{", "b": "{ name }}"}], {"message": "{{ row.a }}{{ row.b }}"}))[0] == "message"
    )


@pytest.mark.contract
def test_dynamic_fields_go_to_apptoto_where_the_row_has_an_appointment() -> None:
    rows = [EVENT | {"n": "Mary"}, {"type": "sms", "participant_id": "34", "n": "Bob"}]
    text = "Hi {{ row.n }}, {{ event.start_time | date_and_time_phrase }} {{ practice }} {% raw %}{{ ds }}{% endraw %}"
    assert texts(plan_of(rows, {"message": text}, dynamic_fields=("practice",))) == [
        "Hi Mary, {{ event.start_time | date_and_time_phrase }} {{ practice }} {{ ds }}",
        "Hi Bob, {{ event.start_time | date_and_time_phrase }} {{ practice }} {{ ds }}",
    ]


@pytest.mark.contract
def test_a_dynamic_field_in_a_default_never_reaches_a_person() -> None:
    """The error may concern the batch or the row; either way there is no message."""
    try:
        plan = plan_of([SMS], {"message": "Hi {{ name }}"})
    except ApptotoConfigurationError as error:
        assert "is a dynamic field, which Apptoto fills only for an event_id or participant_id" in error.problem  # noqa: PT017
    else:
        assert refused(plan)[0] == "message"


@pytest.mark.contract
def test_a_default_that_is_wrong_for_persons_alone_is_listed_with_their_rows() -> None:
    plan = plan_of([EVENT, SMS, EVENT | {"event_id": 13}, {"type": "sms", "to": "bad"}], {"message": "Hi {{ name }}"})
    assert [problem[0] for problem in problems(plan)] == [1, 3]
    assert [planned.index for planned in plan.messages] == [0, 2]


@pytest.mark.contract
def test_row_as_a_dynamic_field_is_refused_since_it_would_mean_two_things() -> None:
    _, reason = refused(plan_of([EVENT | {"n": "Mary"}], {"message": "{{ row.n }}"}, dynamic_fields=("row",)))
    assert "may mean Apptoto's dynamic field row or row" in reason


@pytest.mark.contract
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Hi {{ row.n", "never closed"),
        ("{% if %}", "Expected an expression"),
        ("{{ row.n | nosuchfilter }}", "nosuchfilter"),
    ],
)
def test_a_default_that_is_no_template_is_one_error_and_not_one_a_row(text: str, problem: str) -> None:
    error = refusal([EVENT | {"event_id": index} for index in range(1, 4)], {"message": text})
    assert error.field == "defaults['message']"
    assert problem in error.problem


# --- who wrote it


@pytest.mark.contract
@pytest.mark.parametrize(
    "text", ["{{ conn.apptoto_default.password }}", "{{ row.n }}", "{% raw %}x{% endraw %}", "{# #}x", "Hi {{ name }}"]
)
@pytest.mark.parametrize("target", [SMS, EVENT], ids=["person", "event"])
def test_a_text_of_a_file_or_an_xcom_is_never_rendered_but_refused(text: str, target: dict[str, Any]) -> None:
    field, reason = refused(plan_of([target | {"n": SECRET, "message": text}], context={"conn": SECRET}))
    assert field == "message"
    assert "is not rendered and must be plain" in reason
    field, _ = refused(plan_of([target | {"n": SECRET}], {"message": text}, defaults_kind=SourceKind.VALUE))
    assert field == "message"


@pytest.mark.contract
@pytest.mark.parametrize("field", ["type", "to", "event_id", "template_id"])
def test_no_field_of_a_file_or_an_xcom_is_rendered(field: str) -> None:
    row = {"type": "sms", "message": "Hi"} | ({} if field == "event_id" else {"to": PHONE})
    assert refused(plan_of([row | {field: "{{ params.value }}"}], context={"params": {"value": SECRET}}))[0] == field


@pytest.mark.contract
def test_rows_in_the_dag_file_are_templates_and_their_columns_show_what_comes_out() -> None:
    row = {
        "type": "{{ params.type }}",
        "to": "{{ params.to }}",
        "first_name": "{{ params.name }}",
        "message": "Hi {{ params.name }}",
        "subject": None,
    }
    params = {"type": "email", "to": ADDRESS, "name": "Mary"}
    plan = plan_of([row], {"subject": "For {{ row.first_name }}"}, kind=SourceKind.TEMPLATE, context={"params": params})
    assert payloads(plan) == [{"type": "email", "to": ADDRESS, "message": "Hi Mary", "subject": "For Mary"}]


@pytest.mark.contract
def test_a_column_in_the_dag_file_that_cannot_be_rendered_is_an_error_of_its_row() -> None:
    rows = [
        SMS | {"message": "Hi", "n": "{{ nope }}"},
        SMS | {"message": "Hi", "n": "{{"},
        SMS | {"message": "{{ None }}"},
    ]
    found = problems(plan_of(rows, kind=SourceKind.TEMPLATE))
    assert [(index, field) for index, _, field, _ in found] == [(0, "n"), (1, "n"), (2, "message")]
    assert found[0][3] == "line 1: nope is undefined"


@pytest.mark.contract
def test_a_literal_in_the_dag_file_is_apptotos_as_it_is_and_refused_for_a_person() -> None:
    text = literal("{% if event.x %}Hi{% endif %} {{ ds }}")
    assert texts(plan_of([EVENT | {"message": text}], kind=SourceKind.TEMPLATE)) == [
        "{% if event.x %}Hi{% endif %} {{ ds }}"
    ]
    assert texts(plan_of([EVENT], {"message": text})) == ["{% if event.x %}Hi{% endif %} {{ ds }}"]
    assert (
        "in literal() would reach the recipient"
        in refused(plan_of([SMS | {"message": text}], kind=SourceKind.TEMPLATE))[1]
    )


@pytest.mark.contract
def test_the_mask_of_a_hidden_value_is_never_sent() -> None:
    row = SMS | {"n": Redacted(SECRET)}
    assert "a value is hidden" in refused(plan_of([row], {"message": "Hi {{ row.n }}"}))[1]
    assert refused(plan_of([SMS | {"message": "***"}]))[0] == "message"


@given(st.dictionaries(st.sampled_from(["message", "n", "to", "subject"]), st.text() | st.integers() | st.none()))
@pytest.mark.contract
def test_whatever_an_xcom_holds_a_text_goes_out_as_it_is_or_not_at_all(row: dict[str, Any]) -> None:
    plan = plan_of([{"type": "sms", "event_id": 1} | row])
    assert len(plan.messages) + plan.invalid == 1
    for planned in plan.messages:
        assert planned.message.message == row["message"]


# --- bad rows


def test_all_bad_rows_are_listed_together_with_reference_column_and_reason_and_show_nobodys_data() -> None:
    rows = [
        {"id": "A1", "to": PHONE, "message": "Hi"},
        {"id": "A2", "to": f"{SECRET}@nowhere", "message": SECRET},
        {"id": "A3", "to": OTHER_PHONE, "message": None, "n": SECRET},
        {"id": 4, "event_id": SECRET, "message": SECRET},
        {"to": "12 34", "message": SECRET},
        {"id": "A6", "to": PHONE, "participant_id": 5, "message": SECRET},
        {"id": "A7", "type": f"{SECRET} is ill", "to": PHONE, "message": "x"},
        {"id": "A8", "to": PHONE, "message": "x", "subject": SECRET},
        {"id": "A9", "to": 16505550199, "message": SECRET},
        {"id": "B1", "to": PHONE, "message": [SECRET]},
        SECRET,
    ]
    plan = plan_of(rows_of(rows), {"type": "sms"}, reference_column="id")
    found = problems(plan)
    # a row without the column is invalid too: otherwise a typo in reference_column would go unnoticed
    assert [(index, reference, field) for index, reference, field, _ in found] == [
        (1, "A2", "to"),
        (2, "A3", "message"),
        (3, "4", "event_id"),
        (4, None, "id"),
        (5, "A6", "to"),
        (6, "A7", "type"),
        (7, "A8", "subject"),
        (8, "A9", "to"),
        (9, "B1", "message"),
        (10, None, "row"),
    ]
    assert all(reason for _, _, _, reason in found)
    assert "1234" not in str(found)
    assert "5550199" not in str(found)
    assert (plan.rows, plan.invalid, [planned.index for planned in plan.messages]) == (11, 10, [0])


def test_a_name_that_got_into_the_column_type_is_not_shown() -> None:
    _, reason = refused(plan_of([SMS | {"type": "Mary", "message": "Hi"}]))
    assert "Mary" not in reason


def test_of_very_many_bad_rows_the_first_are_listed_and_all_are_counted() -> None:
    plan = plan_of({"type": "sms"} for _ in range(MAX_PROBLEMS + 5))
    assert (plan.rows, plan.invalid, len(plan.problems)) == (MAX_PROBLEMS + 5, MAX_PROBLEMS + 5, MAX_PROBLEMS)
    assert plan.problems[0].index == 0


def test_bad_rows_of_a_file_are_counted_from_its_first_row_after_the_names(tmp_path: Any) -> None:
    path = tmp_path / "people.csv"
    path.write_text(f"to,message\n\n{PHONE},Hi\nragged\n,Hi\n")
    plan = plan_of(rows_of_file(str(path)), {"type": "sms"})
    assert [(index, field) for index, _, field, _ in problems(plan)] == [(1, "row"), (2, "to")]
    assert [problem.line for problem in plan.problems] == [4, 5]
    assert plan.rows == 3


def test_rows_of_a_list_have_no_line() -> None:
    plan = plan_of([SMS | {"message": "Hi"}, {"type": "sms"}])
    assert [plan.messages[0].line, plan.problems[0].line] == [None, None]


def test_suppressed_and_duplicate_rows_are_named_by_line_and_reference(tmp_path: Any) -> None:
    path = tmp_path / "people.csv"
    path.write_text(f"to,id\n{PHONE},A1\n{OTHER_PHONE},A2\n{PHONE},A3\n{OTHER_PHONE},A4\n")
    plan = plan_of(
        rows_of_file(str(path)), {"type": "sms", "message": "Hi"}, reference_column="id", suppression=[OTHER_PHONE]
    )
    assert [planned.line for planned in plan.messages] == [2]
    assert plan.suppressed_rows == [LeftOut(1, 3, "A2"), LeftOut(3, 5, "A4")]
    assert plan.duplicate_rows == [LeftOut(2, 4, "A3")]


def test_of_very_many_suppressed_and_duplicate_rows_the_first_are_named_and_all_are_counted() -> None:
    rows = [{"to": to} for to in (PHONE, OTHER_PHONE) for _ in range(MAX_PROBLEMS + 5)]
    plan = plan_of(rows, {"type": "sms", "message": "Hi"}, suppression=[OTHER_PHONE])
    assert (plan.suppressed, plan.duplicates) == (MAX_PROBLEMS + 5, MAX_PROBLEMS + 4)
    assert [len(plan.suppressed_rows), len(plan.duplicate_rows)] == [MAX_PROBLEMS, MAX_PROBLEMS]


@pytest.mark.parametrize("id_column", [None, "id"])
def test_a_row_that_contradicts_an_earlier_one_of_its_file_says_the_line_of_that(
    tmp_path: Any, id_column: str | None
) -> None:
    path = tmp_path / "people.csv"
    path.write_text(f"to,message,id\n\n{PHONE},A,7\n{PHONE},B,7\n")
    [(_, _, _, reason)] = problems(plan_of(rows_of_file(str(path)), {"type": "sms"}, id_column=id_column))
    assert reason.startswith("duplicates line 3, but has different content")


def test_a_file_that_breaks_off_makes_no_plan_at_all(tmp_path: Any) -> None:
    path = tmp_path / "people.csv"
    path.write_text(f'to,message\n{PHONE},Hi\n{OTHER_PHONE},"Hi\n')
    assert refusal(rows_of_file(str(path)), {"type": "sms"}).field == "messages_path"


# --- references and keys


@pytest.mark.parametrize(
    ("value", "name"), [("A1", "A1"), (" A1 ", "A1"), (17, "17"), ("x" * 200, "x" * 200), ("Ü", "Ü")]
)
def test_text_and_numbers_name_messages(value: Any, name: str) -> None:
    [planned] = plan_of([SMS | {"id": value, "message": "Hi"}], id_column="id", reference_column="id").messages
    assert (planned.item, planned.reference) == (name, name)


def test_an_integer_that_came_as_a_float_is_the_same_key() -> None:
    values: list[Any] = [4711, "4711", 4711.0]
    rows = [SMS | {"id": value, "message": "Hi"} for value in values]
    plan = plan_of(rows, id_column="id")
    assert ([planned.item for planned in plan.messages], plan.duplicates) == (["4711"], 2)


@pytest.mark.parametrize("parameter", ["id_column", "reference_column"])
@pytest.mark.parametrize("value", ["", " ", True, [SECRET], {"a": SECRET}, "x" * 201], ids=ascii)
def test_a_name_that_could_not_be_kept_is_a_bad_row(parameter: str, value: Any) -> None:
    fields: Any = {parameter: "id"}
    assert refused(plan_of([SMS | {"id": value, "message": "Hi"}], **fields))[0] == "id"


@pytest.mark.parametrize("value", ["a\nb", "a\x1b[2Jb", "a\u2028b", "a\0b", "a\ud800"], ids=ascii)
def test_a_reference_that_no_log_or_ledger_can_hold_in_a_line_is_a_bad_row(value: str) -> None:
    assert refused(plan_of([SMS | {"id": value, "message": "Hi"}], reference_column="id"))[0] == "id"


def test_a_number_too_long_for_text_is_a_bad_row_and_hides_no_other() -> None:
    rows = [SMS | {"id": 10**5000, "message": "Hi"}, SMS | {"id": 1, "message": "Hi"}]
    plan = plan_of(rows, id_column="id")
    assert [index for index, *_ in problems(plan)] == [0]


def test_a_key_is_required_and_a_reference_is_not() -> None:
    row = SMS | {"id": None, "message": "Hi"}
    assert refused(plan_of([row], id_column="id"))[0] == "id"
    [planned] = plan_of([row], reference_column="id").messages
    assert planned.reference is None
    for parameter in ("id_column", "reference_column"):
        fields: Any = {parameter: "nope"}
        field, reason = refused(plan_of([row], **fields))
        assert field == "nope"
        assert f"no such column, but {parameter} names it" in reason


def test_label_columns_become_labels_and_those_that_are_empty_are_left_out() -> None:
    rows = [
        SMS | {"message": "Hi", "clinic": " north ", "floor": 3, "campaign": None},
        {"type": "sms", "event_id": 1, "message": "Hi", "clinic": None, "floor": 4.0, "campaign": "fall"},
        {"type": "sms", "event_id": 2, "message": "Hi", "clinic": None, "floor": None, "campaign": None},
    ]
    plan = plan_of(rows, label_columns=("clinic", "floor", "campaign"))
    assert [planned.labels for planned in plan.messages] == [
        {"clinic": "north", "floor": "3"},
        {"floor": "4", "campaign": "fall"},
        None,
    ]
    assert plan_of(rows).messages[0].labels is None


@pytest.mark.parametrize("value", ["", " ", True, [SECRET], "x" * 201, "a\nb"], ids=ascii)
def test_a_label_that_could_not_be_kept_is_a_bad_row(value: Any) -> None:
    plan = plan_of([SMS | {"message": "Hi", "clinic": value}], label_columns=("clinic",))
    assert refused(plan)[0] == "clinic"
    assert (plan.problems[0].code, plan.problems[0].column) == ("name_invalid", "clinic")


def test_a_label_column_that_a_row_lacks_is_a_bad_row() -> None:
    plan = plan_of([SMS | {"message": "Hi"}], label_columns=("clinic",))
    assert refused(plan) == ("clinic", "the row has no such column, but label_columns names it")
    assert (plan.problems[0].code, plan.problems[0].column) == ("column_missing", "clinic")


# --- codes


@pytest.mark.contract
@pytest.mark.parametrize(
    ("row", "options", "code", "column"),
    [
        ("no mapping", {}, "row_malformed", None),
        ({"to": "call me", "message": "Hi"}, {}, "recipient_invalid", "to"),
        ({"phone": "x", "message": "Hi"}, {"defaults": {"to": "{{ row.phone }}"}}, "recipient_invalid", None),
        ({"event_id": "x", "message": "Hi"}, {}, "id_invalid", "event_id"),
        ({"to": PHONE, "message": " "}, {}, "field_empty", "message"),
        ({"to": PHONE, "message": "{{ name }}"}, {}, "braces_in_value", "message"),
        ({"to": PHONE, "subject": "S", "message": "Hi"}, {}, "subject_not_allowed", "subject"),
        ({"to": PHONE}, {"defaults": {"message": "{{ row.nope }}"}}, "template_failed", None),
        ({"to": PHONE, "message": "Hi"}, {"id_column": "id"}, "column_missing", "id"),
        ({"to": PHONE, "message": "Hi"}, {"timezone_column": "zone"}, "column_missing", "zone"),
        ({"to": PHONE, "message": "Hi"}, {"not_after_column": "latest"}, "column_missing", "latest"),
        ({"to": PHONE, "message": "Hi", "id": ""}, {"id_column": "id"}, "name_invalid", "id"),
        ({"to": PHONE, "message": "Hi", "id": ""}, {"reference_column": "id"}, "name_invalid", "id"),
        ({"event_id": 1, "message": "Hi"}, {"suppression": [PHONE]}, "suppression_impossible", None),
    ],
)
def test_a_bad_row_has_the_code_of_its_problem_and_the_column_that_is_to_blame(
    row: Any, options: dict[str, Any], code: str, column: str | None
) -> None:
    defaults = {"type": "sms", **options.get("defaults", {})}
    plan = plan_of(rows_of([row]), **{**options, "defaults": defaults})
    assert [(problem.code, problem.column) for problem in plan.problems] == [(code, column)]


def test_two_rows_that_cannot_be_told_apart_have_a_code_too() -> None:
    rows = [SMS | {"message": "A", "id": 7}, SMS | {"message": "B", "id": 7}]
    for id_column, column in ((None, "to"), ("id", "id")):
        [problem] = plan_of(rows, id_column=id_column).problems
        assert (problem.code, problem.column) == ("ambiguous", column)


# --- the same twice


def test_rows_that_say_the_same_to_the_same_are_sent_once() -> None:
    row = {"type": "sms", "to": PHONE, "n": "Mary"}
    rows = [row, row | {"to": "+1 (650) 555-0199"}, row | {"n": "mary", "visits": 2}]
    plan = plan_of(rows, {"message": "Hi {{ row.n | title }}"})
    assert texts(plan) == ["Hi Mary"]
    assert (plan.rows, plan.duplicates, plan.messages[0].index) == (3, 2, 0)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"to": PHONE, "message": "A"}, {"to": PHONE, "message": "B"}),
        ({"to": PHONE, "message": "A"}, {"to": "+1 650.555.0199", "template_id": 1}),
        ({"event_id": 12, "message": "A"}, {"event_id": "12", "message": "B"}),
        ({"participant_id": 12, "message": "A"}, {"participant_id": 12, "message": "A", "template_id": 1}),
    ],
)
def test_two_rows_for_one_target_that_say_different_things_need_a_id_column(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    defaults = {"type": "sms"}
    plan = plan_of([one, other], defaults)
    [(index, _, field, reason)] = problems(plan)
    assert (index, field) == (1, "to" if "to" in one else "event_id" if "event_id" in one else "participant_id")
    assert "row 0" in reason
    assert "id_column" in reason
    keyed = plan_of([one | {"id": 1}, other | {"id": 2}], defaults, id_column="id")
    assert len(payloads(keyed)) == 2
    assert len({planned.key for planned in keyed.messages}) == 2


def test_another_channel_or_target_is_another_message() -> None:
    rows = [
        {"type": "sms", "to": PHONE},
        {"type": "call", "to": PHONE},
        {"type": "sms", "event_id": 1},
        {"type": "sms", "participant_id": 1},
        {"type": "email", "event_id": 1},
        {"type": "sms", "to": OTHER_PHONE},
    ]
    plan = plan_of(rows, {"message": "Hi"})
    assert len(payloads(plan)) == len({planned.key for planned in plan.messages}) == 6


@pytest.mark.parametrize("other", [{"to": OTHER_PHONE}, {"message": "B"}, {"type": "call"}])
def test_a_key_that_two_different_messages_have_is_an_error(other: dict[str, Any]) -> None:
    row = SMS | {"id": 7, "message": "A"}
    plan = plan_of([row, row | other, row], id_column="id")
    [(index, _, field, reason)] = problems(plan)
    assert (index, field) == (1, "id")
    assert reason == "duplicates row 0, but has different content"
    assert (len(plan.messages), plan.duplicates) == (1, 1)


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("sms", "+1 650-555-0199", "+1 (650) 555 0199"),
        ("email", "Mary@clinic.com", "mary@clinic.com"),
        ("email", "mary@CLINIC.com", "mary@clinic.com"),
    ],
)
def test_nobody_gets_two_of_a_batch_because_of_two_ways_to_write_one_recipient(kind: str, one: str, other: str) -> None:
    plan = plan_of([{"to": one}, {"to": other}], {"type": kind, "message": "Hi"})
    assert len(plan.messages) == 1


# --- how many


def test_a_batch_of_as_many_messages_as_allowed_is_planned() -> None:
    rows = [{"to": PHONE}, {"to": OTHER_PHONE}]
    assert len(payloads(plan_of(rows, {"type": "sms", "message": "Hi"}, max_messages=2))) == 2


def test_one_message_too_many_and_there_is_no_plan_and_the_error_says_so() -> None:
    rows = [{"to": PHONE}, {"to": OTHER_PHONE}, {"event_id": 1}]
    error = refusal(rows, {"type": "sms", "message": "Hi"}, max_messages=2)
    assert error.field == "max_messages"
    assert error.problem == "is 2, but the batch has more messages. Nothing was sent. Raise it if this is intended"


def test_only_messages_that_would_be_sent_count() -> None:
    rows = [
        {"to": PHONE},
        {"to": PHONE},
        {"to": "bad"},
        {"to": PHONE, "name": "Other"},
        {"to": OTHER_PHONE},
        {"to": "+1 650 555 0198"},
        {"to": "+16505550197"},
    ]
    defaults = {"type": "sms", "message": "Hi {{ row.name | default('you') }}"}
    plan = plan_of(rows, defaults, max_messages=2, suppression=[OTHER_PHONE])
    counts = (plan.rows, len(plan.messages), plan.duplicates, plan.suppressed, plan.invalid)
    assert counts == (7, 2, 1, 2, 2)


# --- every row is one thing


ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "to": st.sampled_from([PHONE, OTHER_PHONE, "+1 (650) 555-0199", "+16505550197", "911", "", None, 5]),
            "message": st.sampled_from(["A", "B", " ", None, "{{ name }}"]),
        },
        optional={"id": st.sampled_from([1, "1", 2, None, ""]), "event_id": st.sampled_from([1, 2, "x", None])},
    )
    | st.sampled_from([None, "row"]),
    max_size=12,
)


@given(
    ROWS,
    st.sampled_from([{"type": "sms"}, {"type": "sms", "message": "Default"}]),
    st.booleans(),
    st.sampled_from([(), (PHONE,), (OTHER_PHONE, None)]),
)
def test_every_row_is_sent_or_counted_as_one_thing_and_no_two_messages_share_a_key(
    rows: list[Any],
    defaults: dict[str, str],
    keyed: bool,
    suppression: tuple[str | None, ...],
) -> None:
    options: dict[str, Any] = {"suppression": suppression, "id_column": "id" if keyed else None}
    plan = plan_of(rows_of(rows), defaults, **options)
    assert plan.rows == len(rows)
    assert len(plan.messages) + plan.duplicates + plan.suppressed + plan.invalid == plan.rows
    assert len(plan.problems) == plan.invalid
    keys = Counter(planned.key for planned in plan.messages)
    assert set(keys.values()) <= {1}
    if not keyed:
        targets = Counter((planned.message.to, planned.message.event_id) for planned in plan.messages)
        assert set(targets.values()) <= {1}
    assert not {planned.message.to for planned in plan.messages} & set(suppression) - {None}
    # in order, and the same rows make the same plan
    indices = [planned.index for planned in plan.messages]
    assert indices == sorted(indices)
    again = plan_of(rows_of(rows), defaults, **options)
    assert [planned.key for planned in again.messages] == [planned.key for planned in plan.messages]


# --- phone numbers that get no messages


SPELLINGS = [
    "650-555-0199",
    "(650) 555-0199",
    "6505550199",
    "16505550199",
    "1 650 555 0199",
    "011 1 650 555 0199",
    "001 650 555 0199",
    "0650 555 0199",
    "5550199",
]


def test_one_person_in_nine_spellings_gets_nothing_without_a_region_and_each_row_says_what_to_set() -> None:
    plan = plan_of([{"to": number, "id": number} for number in SPELLINGS], {"type": "sms", "message": "Hi"})
    assert plan.messages == []
    assert [(index, field) for index, _, field, _ in problems(plan)] == [(index, "to") for index in range(9)]
    for _, _, _, reason in problems(plan):
        assert reason == (
            "•••0199 has no country code; add + and the country code, or set default_region on the connection"
        )
    keyed = plan_of([{"to": SPELLINGS[0], "id": 1}], {"type": "sms", "message": "Hi"}, id_column="id")
    assert (keyed.messages, keyed.invalid) == ([], 1)


def test_one_person_in_several_spellings_gets_one_message_where_a_region_tells() -> None:
    rows = [{"to": number} for number in (PHONE, *SPELLINGS[:5])]
    plan = plan_of(rows, {"type": "sms", "message": "Hi"}, region="US")
    assert (len(payloads(plan)), plan.duplicates) == (1, 5)


@pytest.mark.parametrize(
    ("row", "field", "says"),
    [
        ({"to": "+5351234567"}, "to", "is a number of CU, but allowed_regions is US"),
        ({"to": "+19005550199"}, "to", "is a premium-rate number"),
        ({"to": "+19005550199", "type": "call"}, "to", "is a premium-rate number"),
        ({"to": PHONE, "message": "a\x1b[2Jb"}, "message", "contains the control character U+001B"),
        ({"to": PHONE, "message": "a" * 460}, "message", "takes about 4 segments (GSM-7), more than max_segments=3"),
    ],
    ids=["country", "type", "type of a call", "control character", "length"],
)
def test_a_row_that_would_cost_or_do_harm_is_invalid_and_the_others_are_planned(
    row: dict[str, Any], field: str, says: str
) -> None:
    fine = {"type": "sms", "to": OTHER_PHONE, "message": "Hi"}
    plan = plan_of([fine | row, fine], region="US")
    [(index, _, wrong, reason)] = problems(plan)
    assert (index, wrong) == (0, field)
    assert says in reason
    assert [planned.index for planned in plan.messages] == [1]
