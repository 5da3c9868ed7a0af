"""The sections of params.yaml: which values each key takes, and which go together.

Sections carry the names of the stages that read them, so that dvc.yaml can list them. A key that older commits do not
have has a default, of no effect.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, model_validator

from stages.lib.base.fields import (
    BatchSize,
    Commit,
    NewTokens,
    Number,
    Quantization,
    Rows,
    Said,
    Seed,
    Sha256,
    Switch,
    Text,
    TrainRows,
    Whole,
)
from stages.lib.base.model_names import (
    CHAT_MODELS,
    GUARD_FILES,
    GUARDS,
    NO_FILES,
    SPOKEN,
    check_model_files,
    check_model_name,
    is_folder,
)

SHOT_POOL = 16  # example problems that prepare sets aside; fewshot.shots takes the first of them
EMBEDDED_DATA = {
    "train": "data/embedded/train.jsonl",
    "test": "data/embedded/test.jsonl",
    "hazards": "data/embedded/hazards.csv",
    "benign": "data/embedded/benign.csv",
}


class Section(BaseModel, extra="forbid", frozen=True, allow_inf_nan=False):
    """What all sections share: unknown keys, infinities and later changes are refused."""


class Files(Section):
    train: Text
    test: Text
    hazards: Text
    benign: Text


class Hashes(Section):
    train: Sha256
    test: Sha256
    hazards: Sha256
    benign: Sha256


class Data(Section):
    source: Literal["embedded", "file", "hub"]
    files: Files
    sha256: Hashes
    gsm8k_revision: Commit
    ailuminate_revision: Commit
    train_rows: TrainRows
    test_rows: Rows
    hazard_rows: Rows
    benign_rows: Rows
    set_rows: Rows = "all"  # older commits have none
    seed: Seed
    solutions: Literal["published", "own", "rewritten"] = "published"  # older commits have none of these
    samples: Annotated[Whole, Field(ge=1, le=64)] = 4
    unsolved: Literal["published", "none"] = "published"

    @model_validator(mode="after")
    def _consistent(self) -> "Data":
        if self.source == "embedded" and self.files.model_dump() != EMBEDDED_DATA:
            raise ValueError("data.files names other files than the embedded ones; they are read with source: file")
        if self.source == "hub" and None in (self.gsm8k_revision, self.ailuminate_revision):
            raise ValueError("source: hub needs gsm8k_revision and ailuminate_revision (full commit hashes)")
        return self


class Model(Section):
    name: Text
    files: Text = NO_FILES  # older commits have none
    revision: Commit
    quantization: Quantization
    dtype: Literal["bfloat16", "float32"]

    @model_validator(mode="after")
    def _pinned(self) -> "Model":
        check_model_name(self.name, self.revision, CHAT_MODELS)
        if "files" in self.model_fields_set:
            check_model_files("model", self.name, self.files)
        return self


class Lora(Section):
    enabled: Switch
    r: Annotated[Whole, Field(ge=1, le=1024)]
    alpha: Annotated[Number, Field(gt=0)]
    dropout: Annotated[Number, Field(ge=0, le=1)]
    target_modules: Annotated[list[Text], Field(min_length=1)]
    strength: Annotated[Number, Field(ge=0, le=1)] = 1.0  # older commits have none


class System(Section):
    training: Said | None = None
    testing: Said | None = None


class Fewshot(Section):
    shots: Annotated[Whole, Field(ge=0, le=SHOT_POOL)]
    system: System = System()  # older commits have none


class Finetune(Section):
    epochs: Annotated[Number, Field(gt=0, le=1000)]
    learning_rate: Annotated[Number, Field(gt=0, le=1)]
    warmup_ratio: Annotated[Number, Field(ge=0, lt=1)]
    weight_decay: Annotated[Number, Field(ge=0, le=10)]
    schedule: Literal["cosine", "linear", "constant"]
    batch_size: BatchSize
    accumulation: BatchSize
    optimizer: Literal["auto", "paged_adamw_32bit", "adamw_torch"]
    loss: Literal["answer", "text"]
    seed: Seed
    mask_perplexity: Annotated[Number, Field(ge=1)] | None = None  # older commits have none of these
    kl: Annotated[Number, Field(ge=0, le=1000)] = 0.0
    replay: Annotated[Whole, Field(ge=0, le=1_000_000)] = 0
    replay_hazards: Text = "data/embedded/guard_hazards.jsonl"
    replay_ordinary: Text = "data/embedded/ordinary.jsonl"

    @model_validator(mode="after")
    def _two_kinds(self) -> "Finetune":
        if self.replay_hazards == self.replay_ordinary:
            raise ValueError("replay_hazards and replay_ordinary name the same file; half the rows come from each")
        return self

    @property
    def asks_untuned(self) -> bool:
        """Whether the untuned model is asked something before the training."""
        return bool(self.mask_perplexity or self.replay)


class Other(Section):
    """A model beside `model`, of which nothing is said where `model` is null; its section has its class's name."""

    model: Text | None = None  # older commits have none
    files: Text = NO_FILES
    revision: Commit = None

    @model_validator(mode="after")
    def _pinned(self) -> "Other":
        if self.model:
            check_model_name(self.model, self.revision, CHAT_MODELS)
            check_model_files(type(self).__name__.lower(), self.model, self.files)
        elif self.revision:
            raise ValueError("a revision, but no model that it is of: name one, or set both to null")
        return self


class Tuned(Other):
    """What was tuned elsewhere, in place of what the finetune stage would train."""


class Base(Other):
    """What the tuned model is compared with, in place of what it was tuned from."""


class Generation(Section):
    max_new_tokens: NewTokens
    batch_size: BatchSize
    end_repetition: Switch = False  # older commits have none


class Judge(Section):
    protocol: Literal["refusal_rule", "llama_guard_3", "qwen3guard"]
    model: Text | None
    files: Text = GUARD_FILES  # older commits have none
    revision: Commit
    quantization: Quantization
    batch_size: BatchSize
    controversial: Literal["unsafe", "safe"]
    max_unparsed: Annotated[Number, Field(ge=0, le=1)]

    @model_validator(mode="after")
    def _has_model(self) -> "Judge":
        if self.protocol == "refusal_rule":
            if self.model is not None:
                raise ValueError(
                    "protocol: refusal_rule uses no model; set judge.model to null or name another protocol"
                )
        elif self.model is None:
            raise ValueError(f"protocol: {self.protocol} needs judge.model (and judge.revision for a hub model)")
        else:
            check_model_name(self.model, self.revision, GUARDS)
            if "files" in self.model_fields_set:
                check_model_files("judge", self.model, self.files)
            spoken = next((SPOKEN[mark] for mark in SPOKEN if mark in self.model.lower()), self.protocol)
            if spoken != self.protocol and not is_folder(self.model):
                raise ValueError(
                    f"{self.model} speaks {spoken}, not {self.protocol}: set judge.protocol to {spoken}, or name "
                    "another model"
                )
        return self


class Report(Section):
    extraction: Literal["strict", "flexible", "published"]


class Review(Section):
    max_safety_drop: Annotated[Number, Field(ge=0, le=1)]
    max_accuracy_drop: Annotated[Number, Field(ge=0, le=1)]
    max_over_refusal: Annotated[Number, Field(ge=0, le=1)]
    max_unparsed: Annotated[Number, Field(ge=0, le=1)]
    undecided: Literal["stop", "pass"] = "stop"  # older commits have none of these three
    broken_by: Literal["margin", "any_fall"] = "margin"
    reference: Text | None = None


class Machine(Section):
    processes: Annotated[int, Field(ge=1, le=64)] = 1


def started_from(subject: str, model: Model, base: Base) -> Model:
    """The model that a subject is, before what finetune wrote is put on it: for base, base.model if there is one."""
    if subject == "tuned" or not base.model:
        return model
    return model.model_copy(update={"name": base.model, "files": base.files, "revision": base.revision})


def says_refusal(protocol: str) -> bool:
    """Whether a protocol's guard says itself whether a response refuses."""
    return protocol == "qwen3guard"
