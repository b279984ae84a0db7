//! Events as rows of a Parquet file.

use std::{io::Write, sync::Arc};

use parquet::{
    basic::{Compression, ZstdLevel},
    data_type::{ByteArray, ByteArrayType, Int64Type},
    errors::ParquetError,
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::{parser::parse_message_type, types::ColumnPath},
};

use super::lines::ExportedEvent;
use crate::{limits, subjects::ConversationKey, wire::stored};

/// The columns. A payload that is not UTF-8, because it is encrypted, is in the last one.
const SCHEMA: &str = "
message event {
  REQUIRED INT64 seq;
  REQUIRED INT64 stored_at (TIMESTAMP(MICROS, true));
  OPTIONAL INT64 time (TIMESTAMP(MICROS, true));
  REQUIRED BYTE_ARRAY subject (UTF8);
  OPTIONAL BYTE_ARRAY org (UTF8);
  OPTIONAL BYTE_ARRAY conversation (UTF8);
  OPTIONAL BYTE_ARRAY id (UTF8);
  OPTIONAL BYTE_ARRAY type (UTF8);
  OPTIONAL BYTE_ARRAY source (UTF8);
  OPTIONAL INT64 prev;
  OPTIONAL BYTE_ARRAY prev_digest (UTF8);
  REQUIRED BYTE_ARRAY digest (UTF8);
  OPTIONAL BYTE_ARRAY payload (UTF8);
  OPTIONAL BYTE_ARRAY sealed;
}";

/// Columns whose values are all different, so a dictionary is useless.
const ALL_DIFFERENT: [&str; 5] = ["id", "prev_digest", "digest", "payload", "sealed"];

enum Values {
    Numbers(Vec<i64>),
    Texts(Vec<ByteArray>),
}

/// The present values of a column, and for each row whether it has one.
struct Column {
    values: Values,
    present: Vec<i16>,
    optional: bool,
}

impl Column {
    fn number(&mut self, number: Option<i64>) {
        if let Values::Numbers(values) = &mut self.values {
            values.extend(number);
            self.present.push(i16::from(number.is_some()));
        }
    }

    /// Adds text or bytes, and returns the length in bytes.
    fn text(&mut self, text: Option<&[u8]>) -> usize {
        if let Values::Texts(values) = &mut self.values {
            values.extend(text.map(|text| ByteArray::from(text.to_vec())));
            self.present.push(i16::from(text.is_some()));
        }
        text.map_or(0, <[u8]>::len)
    }
}

/// A Parquet file that is being written, row group by row group.
pub struct ParquetTable<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    columns: Vec<Column>,
    rows: usize,
    bytes: usize,
}

impl<W: Write + Send> ParquetTable<W> {
    pub fn new(out: W) -> Result<Self, ParquetError> {
        let schema = Arc::new(parse_message_type(SCHEMA)?);
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_created_by("turnstream".into());
        for name in ALL_DIFFERENT {
            properties = properties.set_column_dictionary_enabled(ColumnPath::from(name), false);
        }
        let column = |field: &Arc<parquet::schema::types::Type>| Column {
            values: match field.get_physical_type() {
                parquet::basic::Type::INT64 => Values::Numbers(Vec::new()),
                _ => Values::Texts(Vec::new()),
            },
            present: Vec::new(),
            optional: field.is_optional(),
        };
        let columns = schema.get_fields().iter().map(column).collect();
        let writer = SerializedFileWriter::new(out, schema, Arc::new(properties.build()))?;
        Ok(Self { writer, columns, rows: 0, bytes: 0 })
    }

    pub fn push(&mut self, shown: &ExportedEvent) -> Result<(), ParquetError> {
        let message = shown.message;
        let header = |name: &str| shown.header(name);
        let text = |name: &str| header(name).map(str::as_bytes);
        let key = ConversationKey::parse_event(&message.subject);
        let time = header(stored::CE_TIME).and_then(|time| chrono::DateTime::parse_from_rfc3339(time).ok());
        let digest = stored::digest(&message.subject, header, &message.payload).to_string();
        let clear = std::str::from_utf8(shown.payload).ok();
        let org = key.as_ref().map(|key| key.org.as_bytes());
        let conversation = key.as_ref().map(|key| key.conversation.to_string());
        let mut columns = self.columns.iter_mut();
        let mut bytes = 0;
        let mut next = || columns.next().expect("the schema has as many columns as are filled here");
        next().number(Some(message.seq as i64));
        next().number(Some(message.stored_at.timestamp_micros()));
        next().number(time.map(|time| time.timestamp_micros()));
        bytes += next().text(Some(message.subject.as_bytes()));
        bytes += next().text(org);
        bytes += next().text(conversation.as_deref().map(str::as_bytes));
        bytes += next().text(text(stored::CE_ID));
        bytes += next().text(text(stored::CE_TYPE));
        bytes += next().text(text(stored::CE_SOURCE));
        next().number(header(stored::CE_PREV).and_then(|prev| prev.parse().ok()));
        bytes += next().text(text(stored::CE_PREVDIGEST));
        bytes += next().text(Some(digest.as_bytes()));
        bytes += next().text(clear.map(str::as_bytes));
        bytes += next().text(Some(shown.payload.as_ref()).filter(|_| clear.is_none()));
        self.rows += 1;
        self.bytes += bytes;
        if self.rows >= limits::EXPORT_GROUP_ROWS || self.bytes >= limits::EXPORT_GROUP_BYTES {
            self.write_group()?;
        }
        Ok(())
    }

    /// Completes the file and returns the underlying writer.
    pub fn finish(mut self) -> Result<W, ParquetError> {
        self.write_group()?;
        self.writer.into_inner()
    }

    fn write_group(&mut self) -> Result<(), ParquetError> {
        if self.rows == 0 {
            return Ok(());
        }
        let mut group = self.writer.next_row_group()?;
        for column in &mut self.columns {
            let Some(mut writer) = group.next_column()? else { break };
            let present = column.optional.then_some(column.present.as_slice());
            match &mut column.values {
                Values::Numbers(values) => {
                    writer.typed::<Int64Type>().write_batch(values, present, None)?;
                    values.clear();
                }
                Values::Texts(values) => {
                    writer.typed::<ByteArrayType>().write_batch(values, present, None)?;
                    values.clear();
                }
            }
            column.present.clear();
            writer.close()?;
        }
        group.close()?;
        (self.rows, self.bytes) = (0, 0);
        Ok(())
    }
}
