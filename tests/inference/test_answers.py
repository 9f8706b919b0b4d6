"""The first predictions of a run and its classes, of one process and of several."""

from ipucnn.data import ImageDataset
from ipucnn.inference.answers import FIRST, Answer, Answers


class Names(ImageDataset):
    class_names = ("a", "b")

    def __len__(self):
        return 0

    def image(self, index):
        raise NotImplementedError

    def name(self, index):
        return f"{index}.jpg"


def add(answers, index):
    output, label = index % 3 % 2, [0, 1, None][index % 3]
    answers.labelled = True
    answers.add(Names(), index, Answer(output, 0.75, label,
                                       None if label is None else label == output))


def test_several_processes_show_what_one_shows():
    one, two = Answers(Names.class_names), [Answers(Names.class_names) for _ in range(2)]
    for index in range(24):
        add(one, index)
        add(two[index % 2], index)
    rows, classes = one.together([one.as_plain()])
    assert (rows, classes) == two[0].together([made.as_plain() for made in two])
    assert [row["path"] for row in rows] == [f"{index}.jpg" for index in range(FIRST)]
    assert rows[1] == {"path": "1.jpg", "class": 1, "name": "b", "probability": 0.75,
                       "label_name": "b", "correct": True}
    assert (rows[2]["label_name"], rows[2]["correct"]) == (None, None)
    assert classes == [{"class": 0, "name": "a", "images": 16, "correct": 8},
                       {"class": 1, "name": "b", "images": 8, "correct": 8}]


def test_without_labels_nothing_is_right_or_wrong():
    answers = Answers(Names.class_names)
    for index in range(2):
        answers.add(Names(), index, Answer(1, 0.5))
    rows, classes = answers.together([answers.as_plain(), None])
    assert set(rows[0]) == {"path", "class", "name", "probability"}
    assert classes == [{"class": 1, "name": "b", "images": 2}]


def test_several_labels_are_named_like_those_of_predictions():
    answers = Answers(Names.class_names)
    answers.labelled = True
    for index, labels in enumerate(((0, 1), ())):
        answers.add(Names(), index, Answer(1, 0.5, labels, bool(labels)))
    rows, _ = answers.together([answers.as_plain()])
    assert [row["label_name"] for row in rows] == ["a|b", ""]
