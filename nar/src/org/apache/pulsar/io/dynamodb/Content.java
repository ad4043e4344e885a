package org.apache.pulsar.io.dynamodb;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.util.Base64;
import java.util.Map;
import java.util.Objects;
import java.util.function.Supplier;
import org.apache.pulsar.client.api.Message;
import org.apache.pulsar.client.api.Schema;
import org.apache.pulsar.client.api.schema.GenericObject;
import org.apache.pulsar.client.api.schema.GenericSchema;
import org.apache.pulsar.client.api.schema.KeyValueSchema;
import org.apache.pulsar.common.schema.KeyValue;
import org.apache.pulsar.common.schema.KeyValueEncodingType;
import org.apache.pulsar.common.schema.SchemaInfo;
import org.apache.pulsar.functions.api.Record;

/** What of a message a transform function can change. */
record Content(String key, boolean binaryKey, long eventTime, Map<String, String> properties, byte[] schemaVersion,
               Supplier<SchemaInfo> schema, byte[] value) {

    static Content of(Message<?> message) {
        return new Content(message.hasKey() ? message.getKey() : null, message.hasBase64EncodedKey(), message.getEventTime(), message.getProperties(),
                message.getSchemaVersion(), () -> message.getReaderSchema().map(Schema::getSchemaInfo).orElse(null),
                message.size() == 0 && message.getValue() == null ? null : message.getData());
    }

    int size() {
        return value == null ? 0 : value.length;
    }

    /** What the transform function was called with. Pulsar keeps it beside what its interface tells of a record. */
    static Record<?> input(Record<?> output) {
        try {
            return (Record<?>) output.getClass().getMethod("getSourceRecord").invoke(output);
        } catch (ReflectiveOperationException e) {
            throw new IllegalStateException("This version of Pulsar does not tell which message the output of a transform function is of: remove "
                    + "transformFunction, and transform with a function of its own, which writes to another topic", e);
        }
    }

    /** What the function has made of it. {@code versions}: of the schemas that it uses, which the topic does not know. */
    static Content transformed(Record<?> output, Message<?> message, Map<SchemaInfo, byte[]> versions) {
        Schema<?> schema = output.getSchema();
        SchemaInfo info = schema.getSchemaInfo();
        byte[] version = versions.computeIfAbsent(info, another -> ("transformed " + versions.size()).getBytes(UTF_8));
        try {
            Object value = output.getValue();
            if (value instanceof GenericObject object && !(schema instanceof GenericSchema)) {
                value = object.getNativeObject();
            }
            String key = output.getKey().orElse(null);
            boolean apart = value instanceof KeyValue && ((KeyValueSchema<?, ?>) schema).getKeyValueEncodingType() == KeyValueEncodingType.SEPARATED;
            if (apart) {
                byte[] encoded = encode(((KeyValueSchema<?, ?>) schema).getKeySchema(), ((KeyValue<?, ?>) value).getKey());
                key = encoded == null ? null : Base64.getEncoder().encodeToString(encoded);
            }
            Map<String, String> properties = Objects.requireNonNullElse(output.getProperties(), Map.of());
            return new Content(key, apart, output.getEventTime().orElse(-1L), properties, version, () -> info, encode(schema, value));
        } catch (RuntimeException e) {
            throw new IllegalArgumentException("What the transform function makes of message " + message.getMessageId() + " of "
                    + message.getTopicName() + " cannot be encoded with its schema " + info.getName() + " of type " + info.getType(), e);
        }
    }

    @SuppressWarnings("unchecked")
    private static <T> byte[] encode(Schema<T> schema, Object value) {
        return value == null ? null : schema.encode((T) value);
    }
}
