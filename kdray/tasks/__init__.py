"""Tasks by name. A new task is one file here and a line in the table."""

from kdray.tasks.base import Encoded, Row, Task
from kdray.tasks.multi_label_classification import MultiLabelClassification
from kdray.tasks.question_answering import QuestionAnswering
from kdray.tasks.regression import Regression
from kdray.tasks.relation_extraction import RelationExtraction
from kdray.tasks.sentence_embedding import SentenceEmbedding
from kdray.tasks.sequence_classification import SequenceClassification
from kdray.tasks.token_classification import TokenClassification

_ALL: tuple[Task, ...] = (SequenceClassification(), MultiLabelClassification(), Regression(), RelationExtraction(),
                          TokenClassification(), QuestionAnswering(), SentenceEmbedding())
TASKS: dict[str, Task] = {task.name: task for task in _ALL}

__all__ = ["TASKS", "Encoded", "Row", "Task"]
