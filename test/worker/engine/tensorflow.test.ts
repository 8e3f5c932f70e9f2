import { describeEngineContract } from "./contract.ts";
import { openTensorflow } from "./native-library.ts";

describeEngineContract("tensorflow", openTensorflow);
