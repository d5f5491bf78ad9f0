"""Eighty questions about the documents beside this file, each with words that only the right passage has.

In: nothing. Out: QUESTIONS, and the documents, each section as a file. `exact` ones name a code, a name or a word as it
is written; `paraphrase` ones share hardly a word with their passage; `mixed` ones do both.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"


@dataclass(frozen=True)
class Question:
    kind: str
    text: str
    answer: str


EXACT = {
    "E-4712": "display shows E-4712",
    "error E-4711": "display shows E-4711",
    "7731-AX-90": "bearing set",
    "7731-AX-09": "shaft seal",
    "register 40012": "Register 40012",
    "form RK-7": "form RK-7",
    "HB-22-C": "policy HB-22-C",
    "Ingeborg Thalheimer": "Dr. Ingeborg Thalheimer",
    "DB_CONN_POOL_EXHAUSTED": "DB_CONN_POOL_EXHAUSTED",
    "pg_stat_activity": "pg_stat_activity",
    "ORA-01555": "a snapshot is too old",
    "CVE-2021-44228": "logging library was vulnerable",
    "ix_invoice_customer_id_created_at": "ix_invoice_customer_id_created_at",
    "C++": "written in C++",
    "§ 573": "Under § 573 BGB",
    "§ 573c": "§ 573c BGB: three months",
    "§ 433 BGB": "contract of sale: the seller",
    "Rotterdam": "courts of Rotterdam",
    "CAS 67-64-1": "Acetone, CAS 67-64-1",
    "UN 1203": "Containers of petrol",
    "ISO 3696": "water for analysis",
    "J45.0": "Code J45.0",
    "NJ 40236": "NJ 40236",
    "EC 261/2004": "261/2004",
    "NGC 7000": "nebula in Cygnus",
    "E673-97/L": "E673-97/L",
    "東京タワー": "展望台",
    "终止合同": "提前三十天",
    "보증금": "보증금은",
    "مرشح الهواء": "مرشح الهواء",
}
PARAPHRASE = {
    "my mixer sauce has separated, how can I rescue it": "beat the broken sauce",
    "how many vacation days do I get": "thirty days of paid leave",
    "somebody took my work computer on the train": "stolen or lost device",
    "chopping vegetables makes me cry": "Chill them for an hour",
    "what to do when liquid caustic splashes on my arm": "Rinse with plenty of running water",
    "which evening is best for viewing lunar landscape": "worst time to look at craters",
    "keep snails away from vegetables": "Copper tape",
    "my fruit preserve did not thicken": "stays runny",
    "can I bring my puppy to work": "Dogs are welcome",
    "why are the optics blurry with moisture at night": "lens fogs up",
    "insomnia advice": "Who cannot fall asleep",
    "someone has food stuck in their throat": "between the shoulder blades",
    "compensation when my plane is late": "more than three hours late",
    "the airline mislaid my bag": "suitcase that does not appear",
    "do I leave money for the waiter in Tokyo": "nobody expects money",
    "mountain sickness": "three thousand metres",
    "roll out software gradually": "one machine in ten",
    "undo the latest release": "revert --to previous",
    "container was terminated for using too much RAM": "killed the process",
    "who pays when the faucet leaks in a rented flat": "dripping tap",
    "can I let a friend take over one of my rooms": "give a room to somebody else",
    "loud parties after bedtime": "music must not be heard",
    "protect plumbing from ice": "drain the system",
    "air bubbles make the pump clatter": "rattling sound",
    "black bottoms on my tomato plants": "lack of calcium",
    "my pile of garden scraps stinks": "smells rotten",
    "sharpening a chef's blade": "stone of grit 1000",
    "removing a bloodsucking parasite from skin": "Pull the tick out",
    "getting rid of green growth between the grass": "Moss spreads",
    "where do we assemble if the building burns": "oak tree in the yard",
}
MIXED = {
    "what does E-4721 mean, is the motor too warm": "hotter than 95",
    "how hard do I turn the M8x35 screws": "bolts M8x35",
    "how soon must I hand in receipts with RK-7": "form RK-7",
    "how much sugar does HbA1c measure": "HbA1c",
    "notice a landlord has to keep under 573c": "§ 573c BGB: three months",
    "throw a tenant out at once with § 543": "§ 543 BGB where the rent",
    "delete my personal data under GDPR article 17": "data about them be erased",
    "volume alert DISK_WILL_FILL_IN_4H what to remove": "Old exports fill the volume",
    "tax service answers 429": "tax service too often",
    "process ended with 137": "killed the process",
    "was log4j CVE-2021-44228 fixed in our images": "logging library was vulnerable",
    "which gloves against acetone": "acetone goes through them",
    "how to mix CAS 7664-93-9 with water": "Always add the acid",
    "class of danger for petrol UN 1203": "Containers of petrol",
    "maximum dose of ibuprofen 400 mg": "three tablets of 400 mg",
    "type G plug countries": "Plugs of type G",
    "password of TRAIN-GUEST-5G": "TRAIN-GUEST-5G",
    "distance of M31 Andromeda": "two and a half million years",
    "filter to see NGC 7000": "nebula in Cygnus",
    "which bag for the LUFA-38 soil sample": "LUFA-38",
}
KINDS = {"exact": EXACT, "paraphrase": PARAPHRASE, "mixed": MIXED}
QUESTIONS = [Question(kind, text, answer) for kind, asked in KINDS.items() for text, answer in asked.items()]


def write_documents(folder: Path) -> None:
    """Each section of the corpus as a file of its own, under the title of its document; tables as they are."""
    for path in sorted(CORPUS.iterdir()):
        title, *sections = path.read_text().split("\n## ")
        if not sections:
            (folder / path.name).write_text(title)
        for number, section in enumerate(sections):
            (folder / f"{path.stem}-{number:02d}.md").write_text(f"{title}\n## {section}")


def is_right(question: Question, passage: str) -> bool:
    return question.answer in " ".join(passage.split())
