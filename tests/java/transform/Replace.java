import static java.nio.charset.StandardCharsets.UTF_8;

import org.apache.pulsar.client.api.Schema;
import org.apache.pulsar.client.api.schema.Field;
import org.apache.pulsar.client.api.schema.GenericObject;
import org.apache.pulsar.client.api.schema.GenericRecord;
import org.apache.pulsar.client.api.schema.GenericRecordBuilder;
import org.apache.pulsar.common.schema.SchemaType;
import org.apache.pulsar.functions.api.Context;
import org.apache.pulsar.functions.api.Function;

/** A transform function for a sink: what its configuration has as `from` becomes `to`, in bytes and in a record's texts. With `record` it returns a whole Record. */
public class Replace implements Function<GenericObject, Object> {
    @Override
    public Object process(GenericObject input, Context context) {
        if (context.getUserConfigValue("record").isPresent()) {
            return context.newOutputRecordBuilder(Schema.BYTES).value(new byte[0]).build();
        }
        return input instanceof GenericRecord ? fields((GenericRecord) input, context) : bytes((byte[]) input.getNativeObject(), context);
    }

    private static GenericObject fields(GenericRecord input, Context context) {
        Schema<?> schema = context.getCurrentRecord().getMessage().get().getReaderSchema().get();
        GenericRecordBuilder output = Schema.generic(schema.getSchemaInfo()).newRecordBuilder();
        for (Field field : input.getFields()) {
            Object value = input.getField(field);
            output.set(field, value instanceof String ? replaced((String) value, context) : value);
        }
        return output.build();
    }

    private static GenericObject bytes(byte[] input, Context context) {
        byte[] output = replaced(new String(input, UTF_8), context).getBytes(UTF_8);
        return new GenericObject() {
            @Override
            public SchemaType getSchemaType() {
                return SchemaType.BYTES;
            }

            @Override
            public Object getNativeObject() {
                return output;
            }
        };
    }

    private static String replaced(String text, Context context) {
        return text.replace(context.getUserConfigValue("from").get().toString(), context.getUserConfigValue("to").get().toString());
    }
}
