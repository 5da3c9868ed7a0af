"""Templates and word lists for word_problems.py, one set for each split.

How to read an entry:

- the first argument is the number of steps, then comes the question, then one answer line per step;
- `{a}` is a number drawn for the template: `a=(12, 60)` means from 12 to 60, `a=[20, 50]` one of these;
- `{thing}` is a word from the split's list of that name; `{thing2}` and `{thing3}` are others from it;
- `[a+b=c]` works out a step: it prints `12+7=<<12+7=19>>19`, and later steps can use the result as `c`;
  `[$a+b=c]` prints a dollar sign before the result.

A step uses only + and -, or only * and /, and is worked out from left to right. Numbers are drawn again until
they all differ and every step gives a whole number within the limits, so an entry need not arrange for that.
Every noun takes a plain -s in the plural, and a list used after "a" has no word that would need "an".
"""

from typing import NamedTuple

Draw = tuple[int, int] | list[int]


class Template(NamedTuple):
    steps: int
    question: str
    answer: tuple[str, ...]
    numbers: dict[str, Draw]


def problem(steps: int, question: str, *answer: str, **numbers: Draw) -> Template:
    """A template, checked to have one answer line for each declared step."""
    if len(answer) != steps:
        raise ValueError(f"{steps} steps declared but {len(answer)} answer lines given: {question}")
    return Template(steps, question, answer, numbers)


# The tables below are laid out by hand.
# fmt: off

WORDS: dict[str, dict[str, list[str]]] = {
    "train": {
        "name": [
            "Ava", "Ben", "Carla", "Dev", "Elena", "Farid", "Grace", "Hugo", "Ida", "Jamal", "Kira", "Leo",
            "Mina", "Noah", "Omar", "Priya", "Quinn", "Rosa", "Sam", "Tara", "Umar", "Vera", "Yuki", "Zoe",
        ],
        "thing": ["marble", "sticker", "button", "bead", "crayon", "pencil", "badge", "ribbon", "balloon"],
        "treat": ["muffin", "cookie", "cupcake", "waffle", "scone", "brownie", "doughnut"],
        "fruit": ["apple", "pear", "plum", "lemon", "fig", "orange", "lime"],
        "garment": ["shirt", "cap", "jacket", "hoodie", "sweater", "belt", "vest"],
        "flower": ["tulip", "rose", "daffodil", "sunflower", "carnation", "dahlia"],
        "animal": ["goat", "cow", "pig", "horse", "donkey", "llama"],
        "bird": ["duck", "chicken", "turkey", "peacock"],
        "club": ["chess", "drama", "robotics", "music", "cooking", "science"],
        "goal": ["bike", "tablet", "guitar", "telescope", "camera", "skateboard"],
        "instrument": ["piano", "violin", "flute", "cello", "trumpet", "clarinet"],
        "plot": ["garden", "playground", "field", "lawn", "courtyard"],
        "room": ["bedroom", "classroom", "library", "hallway", "lounge"],
        "tree": ["maple", "pine", "cherry", "birch", "willow", "cedar"],
        "vehicle": ["train", "truck", "van", "motorcycle"],
    },
    "test": {
        "name": [
            "Adrian", "Bianca", "Cedric", "Dalia", "Emil", "Fatima", "Gavin", "Hana",
            "Ivan", "Joanna", "Kofi", "Lucia", "Marek", "Nadia", "Oscar", "Petra",
        ],
        "souvenir": ["shell", "pebble", "magnet", "fossil", "keyring", "figurine"],
        "animal": ["penguin", "seal", "turtle", "dolphin", "stingray"],
        "snack": ["pretzel", "dumpling", "taco", "bagel", "samosa"],
        "furniture": ["desk", "sofa", "mirror", "wardrobe", "dresser"],
        "decoration": ["cushion", "candle", "lamp", "curtain", "rug"],
        "vegetable": ["carrot", "pepper", "pumpkin", "cucumber", "bean"],
        "cord": ["rope", "cable", "wire", "hose"],
        "sport": ["soccer", "volleyball", "hockey", "basketball"],
    },
}

TRAIN: list[Template] = [
    # One step.
    problem(1, "{name} has {a} {thing}s. {name2} gives {name} {b} more. "
               "How many {thing}s does {name} have now?",
            "{name} now has [a+b=c] {thing}s.",
            a=(12, 90), b=(3, 40)),
    problem(1, "A bakery tray holds {a} {treat}s. Customers buy {b} of them before noon. "
               "How many {treat}s are left on the tray?",
            "There are [a-b=c] {treat}s left on the tray.",
            a=(20, 80), b=(3, 60)),
    problem(1, "{name} picked {a} {fruit}s and {name2} picked {b}. "
               "How many more {fruit}s did {name} pick than {name2}?",
            "{name} picked [a-b=c] more {fruit}s than {name2}.",
            a=(25, 95), b=(8, 70)),
    problem(1, "A craft store keeps {thing}s in boxes of {b}. How many {thing}s are there in {a} full boxes?",
            "The {a} boxes hold [a*b=c] {thing}s.",
            a=(2, 9), b=(6, 40)),
    problem(1, "{name} gives away {a} {thing}s, sharing them equally among {b} friends. "
               "How many {thing}s does each friend get?",
            "Each friend gets [a/b=c] {thing}s.",
            a=(12, 96), b=(3, 9)),
    problem(1, "One {garment} costs ${a}. How many dollars do {b} of these {garment}s cost?",
            "The {b} {garment}s cost [$b*a=c].",
            a=(6, 45), b=(2, 9)),
    problem(1, "{name} buys a {garment} for ${a} and pays with a ${b} bill. "
               "How many dollars of change does {name} get?",
            "{name} gets [$b-a=c] in change.",
            a=(15, 47), b=[50]),
    problem(1, "A {vehicle} travels {a} miles every hour. How many miles does it travel in {b} hours?",
            "In {b} hours the {vehicle} travels [a*b=c] miles.",
            a=(30, 70), b=(2, 9)),
    problem(1, "{name} puts a fence around a square {plot} with sides {a} feet long. "
               "How many feet of fence are needed?",
            "A square has 4 equal sides, so the fence is [4*a=b] feet long.",
            a=(15, 95)),
    problem(1, "{name} is {a} years old. {name2} is {b} years older than {name}. How old is {name2}?",
            "{name2} is [a+b=c] years old.",
            a=(5, 30), b=(2, 25)),
    problem(1, "{name} practices the {instrument} for {a} minutes every day. "
               "How many minutes does {name} practice in one week?",
            "A week has 7 days, so {name} practices for [7*a=b] minutes.",
            a=(10, 60)),
    problem(1, "A movie lasts {a} minutes. {name} has watched {b} minutes of it. "
               "How many minutes of the movie are left?",
            "There are [a-b=c] minutes left.",
            a=(85, 150), b=(15, 80)),
    problem(1, "In a quiz, {name} scores {a} points and {name2} scores {b} times as many. "
               "How many points does {name2} score?",
            "{name2} scores [a*b=c] points.",
            a=(6, 40), b=(3, 6)),
    problem(1, "{name} had {a} {thing}s and sold half of them at a market. "
               "How many {thing}s did {name} sell?",
            "Half of the {a} {thing}s is [a/2=b] {thing}s.",
            a=(12, 98)),
    problem(1, "{name} packs {a} {treat}s into bags, putting {b} in each bag. "
               "How many bags does {name} need?",
            "{name} needs [a/b=c] bags.",
            a=(18, 96), b=(3, 9)),
    problem(1, "A young {tree} tree was {a} inches tall last spring. It is {b} inches tall today. "
               "How many inches has it grown?",
            "The tree has grown [b-a=c] inches.",
            a=(15, 50), b=(52, 90)),
    problem(1, "The {club} club needs {a} members to enter a contest. So far {b} people have joined. "
               "How many more members does the club need?",
            "The club needs [a-b=c] more members.",
            a=(15, 40), b=(6, 30)),
    problem(1, "A bookshop sold {a} books on Friday, {b} on Saturday and {c} on Sunday. "
               "How many books did it sell over the three days?",
            "Over the three days it sold [a+b+c=d] books.",
            a=(20, 90), b=(20, 90), c=(20, 90)),
    problem(1, "A rectangular {room} is {a} feet long and {b} feet wide. "
               "How many square feet of carpet cover the whole floor?",
            "The floor has an area of [a*b=c] square feet.",
            a=(14, 32), b=(6, 13)),
    # Two steps.
    problem(2, "{name} buys {a} packs of {thing}s with {b} in each pack, then gives {c} of these {thing}s to "
               "{name2}. How many of them does {name} keep?",
            "The packs hold [a*b=d] {thing}s.",
            "{name} keeps [d-c=e] {thing}s.",
            a=(3, 9), b=(6, 24), c=(5, 40)),
    problem(2, "{name} buys {a} {garment}s for ${b} each and hands the cashier a ${c} bill. "
               "How many dollars does {name} get back?",
            "The {garment}s cost [$a*b=d].",
            "{name} gets back [$c-d=e].",
            a=(3, 6), b=(12, 24), c=[100]),
    problem(2, "{name} has {a} {thing}s. {name2} has {b} more {thing}s than {name}. "
               "How many {thing}s do the two of them have together?",
            "{name2} has [a+b=c] {thing}s.",
            "Together they have [a+c=d] {thing}s.",
            a=(10, 70), b=(3, 40)),
    problem(2, "On Saturday {name} picks {a} {fruit}s. On Sunday {name} picks {b} times as many. "
               "How many {fruit}s does {name} pick that weekend?",
            "On Sunday {name} picks [a*b=c] {fruit}s.",
            "Over the weekend {name} picks [a+c=d] {fruit}s.",
            a=(8, 50), b=(3, 6)),
    problem(2, "A rectangular {plot} is {a} yards long and {b} yards wide. {name} walks around its edge "
               "once. How many yards does {name} walk?",
            "One long side and one short side measure [a+b=c] yards.",
            "There are 2 of each, so {name} walks [2*c=d] yards.",
            a=(30, 90), b=(12, 29)),
    problem(2, "A {goal} costs ${a}. {name} already has ${b} and saves ${c} every week. "
               "After how many weeks can {name} buy the {goal}?",
            "{name} still needs [$a-b=d].",
            "Saving that much takes [d/c=e] weeks.",
            a=(90, 300), b=(20, 80), c=(5, 25)),
    problem(2, "{name} brings {a} {treat}s to a picnic and {name2} brings {b}. All of the {treat}s are "
               "shared equally among {c} children. How many does each child get?",
            "There are [a+b=d] {treat}s at the picnic.",
            "Each child gets [d/c=e] {treat}s.",
            a=(12, 50), b=(12, 50), c=(4, 12)),
    problem(2, "A book has {a} pages. {name} reads {b} pages a day for {c} days. "
               "How many pages are left to read?",
            "{name} reads [b*c=d] pages.",
            "There are [a-d=e] pages left.",
            a=(140, 360), b=(8, 30), c=(3, 9)),
    problem(2, "A bus carries {a} passengers. At the next stop {b} of them get off and {c} people get on. "
               "How many passengers are on the bus then?",
            "After {b} get off, there are [a-b=d] passengers.",
            "After {c} get on, there are [d+c=e] passengers.",
            a=(24, 50), b=(4, 20), c=(3, 18)),
    problem(2, "{name} earns ${a} an hour at the {club} camp, working {b} hours on Monday and {c} hours on "
               "Tuesday. How many dollars does {name} earn in all?",
            "{name} works [b+c=d] hours.",
            "{name} earns [$d*a=e].",
            a=(11, 25), b=(2, 8), c=(2, 8)),
    problem(2, "A box holds {a} {thing}s, and half of them are red. Of the others, {b} are blue and the rest "
               "are green. How many {thing}s are green?",
            "The half that is not red is [a/2=c] {thing}s.",
            "Of these, [c-b=d] are green.",
            a=(24, 120), b=(4, 40)),
    problem(2, "A recipe uses {a} cups of flour to make {b} {fruit} cakes. "
               "How many cups of flour are needed to make {c} of these cakes?",
            "One cake needs [a/b=d] cups of flour.",
            "To make {c} cakes, [c*d=e] cups are needed.",
            a=(6, 16), b=(2, 4), c=(5, 15)),
    problem(2, "{name} is {a} years old, and {name2} is {b} times as old. "
               "How old will {name2} be in {c} years?",
            "{name2} is now [a*b=d] years old.",
            "In {c} years, {name2} will be [d+c=e] years old.",
            a=(4, 14), b=(3, 5), c=(2, 15)),
    problem(2, "Every school day {name} cycles {a} miles to school and then the same way home. "
               "How many miles does {name} cycle in {b} school days?",
            "There and back is [a+a=c] miles.",
            "In {b} school days, {name} cycles [b*c=d] miles.",
            a=(2, 9), b=(3, 20)),
    problem(2, "{name} cuts {a} {flower}s, gives {b} to a neighbor and splits the rest equally among {c} "
               "vases. How many {flower}s go into each vase?",
            "After the gift, [a-b=d] {flower}s remain.",
            "Each vase gets [d/c=e] {flower}s.",
            a=(24, 80), b=(4, 20), c=(3, 8)),
    problem(2, "Each of {name}'s {a} hens lays {b} eggs in one week. {name} packs all of these eggs in "
               "cartons of {c}. How many cartons does {name} fill?",
            "The hens lay [a*b=d] eggs.",
            "{name} fills [d/c=e] cartons.",
            a=(8, 40), b=(3, 6), c=[6, 10, 12]),
    problem(2, "The {club} club meets for {a} minutes. News takes the first {b} minutes and planning takes "
               "the next {c}. How many minutes of the meeting remain?",
            "News and planning take [b+c=d] minutes.",
            "There are [a-d=e] minutes left.",
            a=[50, 60, 75, 80, 90], b=(5, 15), c=(10, 30)),
    problem(2, "An adult ticket to the {instrument} concert costs ${a}, and a child ticket costs ${b} less. "
               "How many dollars do one adult ticket and one child ticket cost together?",
            "A child ticket costs [$a-b=c].",
            "The two tickets cost [$a+c=d].",
            a=(14, 40), b=(3, 12)),
    problem(2, "An empty crate weighs {a} pounds. {name} fills it with {b} melons that weigh {c} pounds "
               "each. How many pounds does the full crate weigh?",
            "The melons weigh [b*c=d] pounds.",
            "The full crate weighs [a+d=e] pounds.",
            a=(5, 15), b=(6, 20), c=(2, 9)),
    # Three steps.
    problem(3, "{name} buys {a} {garment}s at ${b} each and {c} {garment2}s at ${d} each. "
               "How many dollars does {name} spend?",
            "The {garment}s cost [$a*b=e].",
            "The {garment2}s cost [$c*d=f].",
            "{name} spends [$e+f=g].",
            a=(2, 6), b=(8, 40), c=(2, 6), d=(8, 40)),
    problem(3, "{name} spends ${a} on lemons and ${b} on sugar, then sells {c} cups of lemonade for ${d} "
               "each. How many dollars of profit does {name} make?",
            "Lemons and sugar cost [$a+b=e].",
            "Selling the lemonade brings in [$c*d=f].",
            "The profit is [$f-e=g].",
            a=(6, 20), b=(4, 15), c=(20, 60), d=(2, 4)),
    problem(3, "A farm keeps {a} {animal}s and {b} {bird}s. How many legs do these animals have in all?",
            "Each {animal} has 4 legs, so the {animal}s have [4*a=c] legs.",
            "Each {bird} has 2 legs, so the {bird}s have [2*b=d] legs.",
            "In all there are [c+d=e] legs.",
            a=(5, 40), b=(6, 50)),
    problem(3, "{name} earns ${a} each week, spends ${b} of it and saves the rest. After {c} weeks of "
               "saving, {name} buys a {goal} for ${d}. How many dollars of the savings are left?",
            "{name} saves [$a-b=e] each week.",
            "In {c} weeks, {name} saves [$c*e=f].",
            "The savings left are [$f-d=g].",
            a=(30, 60), b=(5, 20), c=(6, 20), d=(90, 250)),
    problem(3, "A novel has {a} pages. {name} reads {b} pages on Monday and {c} times as many on Tuesday. "
               "How many pages are left?",
            "On Tuesday {name} reads [b*c=d] pages.",
            "On both days together {name} reads [b+d=e] pages.",
            "There are [a-e=f] pages left.",
            a=(180, 400), b=(12, 40), c=(3, 5)),
    problem(3, "{name} has {a} {thing}s. {name2} has twice as many as {name}. {name3} has {b} fewer than "
               "{name2}. How many {thing}s do the three have together?",
            "{name2} has twice as many as {name}, which is [2*a=c] {thing}s.",
            "{name3} has [c-b=d] {thing}s.",
            "Together they have [a+c+d=e] {thing}s.",
            a=(10, 60), b=(4, 30)),
    problem(3, "{name} bakes {a} trays of {treat}s with {b} on each tray. After {c} of the {treat}s burn, "
               "{name} packs the rest in boxes of {d}. How many boxes does {name} fill?",
            "{name} bakes [a*b=e] {treat}s.",
            "There are [e-c=f] {treat}s left to pack.",
            "{name} fills [f/d=g] boxes.",
            a=(3, 9), b=(8, 20), c=(4, 20), d=(4, 12)),
    problem(3, "A trip by {vehicle} is {a} miles long. The {vehicle} goes {b} miles an hour for {c} hours, "
               "stops for fuel, and then goes {d} more miles. How many miles of the trip remain?",
            "Before the stop it goes [b*c=e] miles.",
            "In all it has gone [e+d=f] miles.",
            "There are [a-f=g] miles left.",
            a=(260, 600), b=(35, 65), c=(2, 5), d=(20, 90)),
    problem(3, "A rectangular {plot} is {a} feet long and {b} feet wide. {name} fences all four sides with "
               "fence that costs ${c} a foot. How many dollars does the fence cost?",
            "One long side and one short side measure [a+b=d] feet.",
            "There are 2 of each, so the fence is [2*d=e] feet long.",
            "The fence costs [$e*c=f].",
            a=(25, 70), b=(8, 24), c=(3, 9)),
    problem(3, "A teacher splits {a} students into groups of {b}. Each group takes {c} sheets of paper from "
               "a stack of {d}. How many sheets are left in the stack?",
            "There are [a/b=e] groups.",
            "The groups take [e*c=f] sheets.",
            "There are [d-f=g] sheets left.",
            a=(16, 48), b=(3, 6), c=(4, 12), d=[100, 120, 150, 200]),
]

TEST: list[Template] = [
    # One step.
    problem(1, "An aquarium keeps {a} {animal}s in its north pool and {b} in its south pool. "
               "How many {animal}s live in the two pools?",
            "The two pools have [a+b=c] {animal}s.",
            a=(4, 45), b=(4, 45)),
    problem(1, "A parking garage has {a} spaces, and cars are in {b} of them. How many spaces are free?",
            "The garage has [a-b=c] free spaces.",
            a=(150, 400), b=(40, 145)),
    problem(1, "Each tent at a campsite sleeps {a} people. How many people can sleep in {b} tents?",
            "The {b} tents sleep [b*a=c] people.",
            a=(2, 8), b=(12, 60)),
    problem(1, "A {cord} that is {a} meters long is cut into pieces of {b} meters each. "
               "How many pieces are there?",
            "The {cord} makes [a/b=c] pieces.",
            a=(20, 120), b=(2, 9)),
    problem(1, "{name} jumps {a} centimeters and {name2} jumps {b} centimeters. "
               "How many centimeters farther does {name} jump than {name2}?",
            "{name} jumps [a-b=c] centimeters farther.",
            a=(310, 420), b=(240, 305)),
    problem(1, "A {sport} team of {a} players wins ${b} and divides the prize evenly. "
               "How many dollars does every player receive?",
            "Every player receives [$b/a=c].",
            a=(5, 12), b=(120, 960)),
    problem(1, "After paying ${a} for rides at the fair, {name} has ${b} left. "
               "How many dollars did {name} have before the rides?",
            "{name} had [$a+b=c] before the rides.",
            a=(12, 48), b=(5, 60)),
    problem(1, "A triangular flag has three equal sides of {a} centimeters. "
               "How many centimeters of trim does it take to line all its sides?",
            "The flag has 3 equal sides, so it takes [3*a=b] centimeters of trim.",
            a=(20, 99)),
    # Two steps.
    problem(2, "A ferry leaves with {a} cars on the lower deck and {b} cars on the upper deck. At an island, "
               "{c} cars drive off. How many cars stay aboard?",
            "The ferry leaves with [a+b=d] cars.",
            "After the island, [d-c=e] cars stay aboard.",
            a=(20, 60), b=(12, 40), c=(8, 30)),
    problem(2, "{name} orders one {furniture} for ${a} and {b} {decoration}s for ${c} each. "
               "What is the total price in dollars?",
            "The {decoration}s come to [$b*c=d].",
            "The total price is [$a+d=e].",
            a=(120, 600), b=(2, 8), c=(9, 35)),
    problem(2, "In each workout {name} swims {a} lengths of a pool that is {b} meters long. "
               "How many meters does {name} swim in {c} workouts?",
            "One workout is [a*b=d] meters.",
            "The {c} workouts add up to [c*d=e] meters.",
            a=(4, 16), b=[20, 25, 50], c=(2, 7)),
    problem(2, "A rain barrel contains {a} liters of water. {name} uses it to give {b} {vegetable} plants "
               "{c} liters each. How many liters stay in the barrel?",
            "The plants receive [b*c=d] liters.",
            "The barrel still contains [a-d=e] liters.",
            a=(90, 200), b=(6, 20), c=(2, 6)),
    problem(2, "{name} is {a} years old and {name2} is {b} years younger. What do their two ages add up to?",
            "{name2} is [a-b=c] years old.",
            "Their ages add up to [a+c=d].",
            a=(18, 70), b=(3, 15)),
    problem(2, "A chef makes {a} {snack}s, sets {b} aside for the staff and serves the others on plates of "
               "{c}. How many plates are served?",
            "The chef serves [a-b=d] {snack}s.",
            "That makes [d/c=e] plates.",
            a=(40, 120), b=(5, 20), c=(3, 8)),
    problem(2, "A {furniture} usually costs ${a}, but this month it sells at half price. "
               "How many dollars does a hotel pay for {b} of them this month?",
            "Half of ${a} is [$a/2=c].",
            "The hotel pays [$b*c=d].",
            a=(80, 300), b=(3, 12)),
    problem(2, "A machine fills {a} bottles every minute. "
               "How many minutes does it need to fill {b} cases of {c} bottles each?",
            "The cases hold [b*c=d] bottles.",
            "The machine needs [d/a=e] minutes.",
            a=(4, 15), b=(5, 40), c=[12, 18, 20, 24]),
    # Three steps.
    problem(3, "{name} runs {a} laps on Wednesday and twice as many on Thursday. Each lap is {b} meters. "
               "How many meters does {name} run on the two days?",
            "On Thursday {name} runs twice {a} laps, or [2*a=c] laps.",
            "The two days make [a+c=d] laps.",
            "The distance is [d*b=e] meters.",
            a=(2, 6), b=[60, 75, 80, 90, 100, 110]),
    problem(3, "A theater has {a} rows of {b} seats. At one performance {c} seats are empty, and each filled "
               "seat brings in ${d}. How many dollars does the performance bring in?",
            "The theater has [a*b=e] seats.",
            "Of these, [e-c=f] are filled.",
            "They bring in [$f*d=g].",
            a=(5, 12), b=(8, 14), c=(4, 30), d=(6, 15)),
    problem(3, "{name} finds {a} {souvenir}s on vacation. {name2} finds {b} times as many as {name}, and "
               "{name3} finds {c} more than {name}. How many more {souvenir}s does {name2} find than "
               "{name3}?",
            "{name2} finds [a*b=d] {souvenir}s.",
            "{name3} finds [a+c=e] {souvenir}s.",
            "{name2} finds [d-e=f] more {souvenir}s than {name3}.",
            a=(8, 30), b=(3, 6), c=(2, 20)),
    problem(3, "{name} starts a vacation with ${a}. A hotel takes ${b} of it, and {name} divides the "
               "remainder evenly over {c} days. Each day ${d} goes to meals. How many dollars does that "
               "leave for other things each day?",
            "After the hotel, {name} has [$a-b=e].",
            "For each day there is [$e/c=f].",
            "After meals, that leaves [$f-d=g] each day.",
            a=(500, 950), b=(150, 400), c=(3, 9), d=(15, 40)),
]

TEMPLATES: dict[str, list[Template]] = {"train": TRAIN, "test": TEST}
