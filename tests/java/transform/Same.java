import org.apache.pulsar.client.api.Schema;
import org.apache.pulsar.client.api.schema.GenericObject;
import org.apache.pulsar.functions.api.Context;
import org.apache.pulsar.functions.api.Function;
import org.apache.pulsar.functions.api.Record;

/** A transform function for a sink, as Pulsar wants it: it returns a record. */
public class Same implements Function<GenericObject, Record<byte[]>> {
    @Override
    public Record<byte[]> process(GenericObject input, Context context) {
        return context.newOutputRecordBuilder(Schema.BYTES).value((byte[]) input.getNativeObject()).build();
    }
}
