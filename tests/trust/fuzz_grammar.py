"""Filters, orders and page tokens: from MLflow's grammar, broken in small ways, and from noise."""

import base64
import json
import random
from dataclasses import dataclass, field
from typing import Any

NUMBERS = [
    *("0", "1", "-1", "0.5", "1e3", "-1.5E2", "2.", ".5", "1e400", "-0.0", "9223372036854775807"),
    *("9223372036854775808", "1e-400", "007", "+1", "NaN", "inf", "0x10", "1_000", "--1", "1 2", "٣"),
]
TEXTS = [
    *(
        "a",
        "b",
        "alpha",
        "Alpha",
        "al_pha",
        "1",
        "",
        "%",
        "_",
        "%a%",
        "a%b_c",
        "Ä",
        "ä%",
        "x\\",
        "\\%",
        ".*",
        "(",
    ),
    *(
        "a.b",
        "$where",
        "$ne",
        "{'$gt': ''}",
        "a\nb",
        "\t",
        'quo"te',
        "`",
        "--",
        "/*",
        ";",
        "NULL",
        "null",
        "true",
    ),
    *(
        "(a+)+$",
        "%a%a%a%a%a%a%a%a%b",
        "\u202e",
        "😀",
        "\x7f",
        "0",
        "OK",
        "FINISHED",
        "READY",
        "s1",
        "yes",
        "^a|b$",
    ),
]
OPERATORS = [
    "=",
    "!=",
    "<",
    "<=",
    ">",
    ">=",
    "LIKE",
    "ILIKE",
    "IN",
    "NOT IN",
    "IS NULL",
    "IS NOT NULL",
    "RLIKE",
]
NOISE_OPERATORS = [
    "==",
    "<>",
    "=>",
    "NOT LIKE",
    "BETWEEN",
    "IS",
    "NOT",
    "~",
    "$eq",
    "%",
    "!",
    "like",
    "in",
    "is null",
]
PIECES = [
    *(
        "AND",
        "OR",
        "and",
        "NOT",
        "(",
        ")",
        ",",
        "=",
        "'",
        '"',
        "`",
        ".",
        ";",
        "--",
        " ",
        "\n",
        "\0",
        "LIKE",
        "IN",
    ),
    *(
        "metrics",
        "params",
        "tags",
        "attributes",
        "status",
        "name",
        "run_id",
        "$where",
        "1",
        "'a'",
        "NULL",
        "\\",
        "%",
    ),
]


@dataclass(frozen=True)
class Grammar:
    """What a search knows: identifiers of numbers, of texts, and what it orders by."""

    numbers: list[str]
    texts: list[str]
    orders: list[str]
    values: list[str] = field(default_factory=list)
    operators: list[str] = field(default_factory=lambda: OPERATORS)


class Fuzz:
    """A source of cases; the same seed gives the same ones."""

    def __init__(self, grammar: Grammar, seed: str) -> None:
        self.grammar = grammar
        self.dice = random.Random(seed)

    def filter(self) -> str | None:
        dice = self.dice
        drawn = dice.random()
        if drawn < 0.03:
            return None
        if drawn < 0.1:
            return "".join(dice.choice(PIECES) for _ in range(dice.randint(1, 12)))
        if drawn < 0.13:
            return "".join(
                chr(dice.choice([dice.randint(0, 127), dice.randint(128, 0xD7FF)])) for _ in range(9)
            )
        clauses = [self._clause() for _ in range(dice.choice([1, 1, 1, 2, 2, 3, 5]))]
        text = dice.choice([" AND ", " and ", "  AND\n"]).join(clauses)
        return self._broken(text) if dice.random() < 0.25 else text

    def _clause(self) -> str:
        dice = self.dice
        numeric = dice.random() < 0.4 and self.grammar.numbers
        name = dice.choice(self.grammar.numbers if numeric else self.grammar.texts)
        operator = dice.choice(self.grammar.operators if dice.random() < 0.93 else NOISE_OPERATORS)
        if operator.upper().startswith("IS "):
            return f"{name} {operator}"
        if dice.random() < 0.06:
            numeric = not numeric
        space = (
            dice.choice([" ", " ", " ", "", "\t"]) if operator in ("=", "!=", "<", ">", "<=", ">=") else " "
        )
        return f"{name}{space}{operator}{space}{self._value(operator, bool(numeric))}"

    def _value(self, operator: str, numeric: bool) -> str:
        dice = self.dice
        if operator.upper().endswith("IN"):
            listed = ", ".join(self._text() for _ in range(dice.randint(0 if dice.random() < 0.1 else 1, 3)))
            return f"({listed})" if dice.random() < 0.97 else listed
        if numeric:
            return dice.choice(NUMBERS[:6]) if dice.random() < 0.6 else dice.choice(NUMBERS)
        return self._text()

    def _text(self) -> str:
        dice = self.dice
        value = dice.choice(self.grammar.values or TEXTS) if dice.random() < 0.5 else dice.choice(TEXTS)
        quote = dice.choice(["'", "'", "'", '"', "" if dice.random() < 0.2 else "'"])
        return f"{quote}{value}{quote}"

    def _broken(self, text: str) -> str:
        dice = self.dice
        position = dice.randrange(len(text) + 1)
        match dice.randrange(5):
            case 0:
                return text[:position] + text[position + dice.randint(1, 4) :]
            case 1:
                return text[:position] + dice.choice(PIECES) + text[position:]
            case 2:
                return text[:position]
            case 3:
                return text[position:] + text[:position]
            case _:
                return text.swapcase()

    def order(self) -> list[str] | None:
        dice = self.dice
        if dice.random() < 0.2:
            return None
        return [self._order_clause() for _ in range(dice.choice([0, 1, 1, 1, 2, 3]))]

    def _order_clause(self) -> str:
        dice = self.dice
        clause = dice.choice(self.grammar.orders) + dice.choice(["", " ASC", " DESC", " asc", " Desc"])
        return self._broken(clause) if dice.random() < 0.12 else clause

    def token(self, valid: str) -> Any:
        """A token that nobody gave out, or one with a position that nobody was at."""
        dice = self.dice
        body = json.loads(base64.urlsafe_b64decode(valid))
        match dice.randrange(5):
            case 0:
                position = dice.randrange(len(valid))
                return valid[:position] + dice.choice("A=_-é\0 ") + valid[position + 1 :]
            case 1:
                return dice.choice(
                    ["x", "e30=", "====", "\ud800", b"\xff", "W10=", "bnVsbA==", "9" * 5000, "é"]
                )
            case 2:
                body["after"] = [self._junk() for _ in range(dice.randrange(5))]
            case 3:
                index = dice.randrange(len(body["after"]))
                body["after"][index] = self._junk()
            case _:
                body[dice.choice(["of", "after"])] = self._junk()
        return base64.urlsafe_b64encode(json.dumps(body).encode()).decode()

    def _junk(self) -> Any:
        junk = [
            None,
            0,
            -1,
            2**63,
            2**70,
            1e308,
            float("nan"),
            float("inf"),
            "",
            "a",
            "\0",
            "\ud800",
            True,
            [],
            {},
        ]
        return self.dice.choice([*junk, {"$gt": ""}, {"$where": "sleep(10000)"}, ["a"], "x" * 10_000])
